package dev.wardrobe.trainer.plan;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.wardrobe.ExitCode;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import picocli.CommandLine;

final class PlanCommandTest {
  @TempDir Path folder;

  private record Result(int code, String out, String err) {}

  @Test
  void plan_showsEachTermAndTheVerdict() throws IOException {
    Result result =
        run("--rank", "64", "--seq", "512", "--gpu", "a6000", "--optim", "paged_adamw_32bit");
    assertThat(result.code).isZero();
    assertThat(result.out)
        .startsWith(
            "llama, 80 layers, hidden 8,192: 65,285,660,672 parameters; rank 64 on 560 modules"
                + " trains 799,539,200 (1.22 %)\n")
        .contains("micro-batch of 1 x 512 tokens\n")
        .contains("  base, 4 bits           31.11 GiB  projections\n")
        .contains("  optimizer state        610.0 MiB  AdamW, 32 bits, paged\n")
        .contains("paged out: 5,490.0 MiB of optimizer state, in and out once a step\n")
        .containsPattern("a6000 has 47\\.99 GiB: fits, [\\d,.]+ [MG]iB left\n$");
  }

  @Test
  void whatDoesNotFit_saysWhatWould() throws IOException {
    Result result = run("--rank", "64", "--gpu", "rtx4090");
    assertThat(result.code).isEqualTo(ExitCode.DOES_NOT_FIT);
    assertThat(result.out)
        .contains("does not fit, ")
        .endsWith("no option makes it fit; take a smaller model or more memory\n");
    Result together = run("--rank", "64", "--seq", "4096", "--batch", "4", "--gpu", "44GiB");
    assertThat(together.code).isEqualTo(ExitCode.DOES_NOT_FIT);
    assertThat(together.out)
        .containsPattern("with --optim paged_adamw_8bit: ")
        .containsPattern("with also --batch-size [12]: ")
        .endsWith("fits with all of these\n");
    Result alone = run("--rank", "64", "--seq", "4096", "--batch", "4", "--gpu", "72GiB");
    assertThat(alone.out).contains("fits with --batch-size 2: ", "fits with --seq-len 2048: ");
  }

  @Test
  void json_hasBytes() throws IOException {
    Result result = run("--rank", "64", "--memory", "64GiB", "--json", "--use-dora");
    JsonNode tree = new ObjectMapper().readTree(result.out);
    assertThat(tree.get("device").asText()).isEqualTo("cpu");
    assertThat(tree.get("device_bytes").asLong()).isEqualTo(64L << 30);
    assertThat(tree.get("fits").asBoolean()).isEqualTo(result.code == 0);
    long sum = 0;
    for (JsonNode bytes : tree.get("bytes")) {
      sum += bytes.asLong();
    }
    assertThat(tree.get("total_bytes").asLong()).isEqualTo(sum);
    assertThat(tree.get("bytes").get("adapter").asLong())
        .isEqualTo(8 * tree.get("trained_parameters").asLong());
    assertThat(tree.get("trained_parameters").asLong()).isGreaterThan(799_539_200L);
  }

  @Test
  void badOptions_areSaidInOneLine() throws IOException {
    assertThat(run("--optim", "adagrad").err).startsWith("optimizer: expected one of adamw, ");
    assertThat(run("--gpu", "h300").err).startsWith("--gpu h300: expected the size of its memory");
    assertThat(run("--rank", "0").err).startsWith("rank: expected at least 1, got 0");
    assertThat(run("--seq", "0").err).startsWith("sequence and batch: expected at least 1");
    assertThat(run("--gpu", "h200", "--memory", "4GiB").err).startsWith("--memory is");
    assertThat(run("--math", "wild").err).startsWith("--math: expected exact or fast");
    assertThat(run("--optim", "paged_adamw_8bit", "--paged-budget", "5%").err).isEmpty();
    assertThat(run("--paged-budget", "some").err).startsWith("--paged-budget: expected bytes");
    assertThat(run("--optim", "adagrad").code).isEqualTo(CommandLine.ExitCode.USAGE);
  }

  @Test
  void onlyTheConfiguration_isRead() throws IOException {
    Path model = Shapes.LLAMA_65B.write(folder);
    assertThat(run("--rank", "8").code).isNotEqualTo(1);
    try (var files = Files.list(model)) {
      assertThat(files).hasSize(1);
    }
  }

  private Result run(String... options) throws IOException {
    List<String> arguments =
        new ArrayList<>(List.of("--model", Shapes.LLAMA_65B.write(folder).toString()));
    arguments.addAll(Arrays.asList(options));
    StringWriter out = new StringWriter();
    StringWriter err = new StringWriter();
    int code =
        new CommandLine(new PlanCommand())
            .setOut(new PrintWriter(out))
            .setErr(new PrintWriter(err))
            .execute(arguments.toArray(String[]::new));
    return new Result(code, out.toString(), err.toString());
  }
}
