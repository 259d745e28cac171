package dev.wardrobe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * The script that runs llama.cpp and ours in turn, with programs that only say what they were
 * asked.
 */
final class AgainstLlamaCppTest {
  private static final Path ROOT = Path.of(System.getProperty("wardrobe.root"));

  @TempDir private Path dir;

  private record Run(int exit, String text) {}

  @BeforeEach
  void needsPython() {
    assumeTrue(run(List.of("python3", "--version")).exit() == 0, "python3 is not installed");
    assumeTrue(Files.isReadable(Path.of("/proc/stat")), "not on Linux");
  }

  @Test
  void cases_giveRatiosToTheBestOfTheirs() throws IOException {
    // Q4_0 is the faster of theirs.
    program(
        "llama-bench",
        "case $* in *Q4_0*) r=50 ;; *) r=40 ;; esac",
        "echo \"[{\\\"avg_ts\\\": $r, \\\"build_number\\\": 7}]\"");
    program(
        "llama-batched-bench",
        "echo 'main: n_kv_max = 4096'",
        "echo '|    PP |     TG |    B | S_PP t/s | T_TG s | S_TG t/s |'",
        "echo '|-------|--------|------|----------|--------|----------|'",
        "echo '|    32 |     64 |   32 |   130.10 |  20.0  |   100.00 |'");
    program(
        "wardrobe",
        "case $* in",
        "  *--help*) echo no such thing as fast ;;",
        "  *decode*nf4*) echo '" + report(45) + "' ;;",
        "  *decode*) echo '" + report(35) + "' ;;",
        "  *) echo '" + report(60) + "' ;;",
        "esac");
    Files.createFile(dir.resolve("Q4_0.gguf"));
    Files.createFile(dir.resolve("IQ4_NL.gguf"));
    Path json = dir.resolve("out.json");

    Run run =
        script(
            "--case decode --case streams --rounds 2 --most-others 100 --json " + json.toString());
    assertThat(run.exit()).as(run.text()).isZero();
    assertThat(run.text())
        .containsPattern("(?m)^decode +llama.cpp Q4_0 +50.00 +50.00 +50.00 +2 +best$")
        .containsPattern("(?m)^decode +wardrobe exact, NF4 head +45.00 +45.00 +45.00 +2 +0.900$")
        .containsPattern("(?m)^decode +wardrobe exact, bf16 head .* 0.700$")
        .containsPattern("(?m)^streams +wardrobe exact, NF4 head .* 0.600$")
        .contains("-p 0 -n 128 -t 2", "-npp 32 -ntg 64 -npl 32 -t 2");
    JsonNode decode = new ObjectMapper().readTree(json.toFile()).get("results").get(0);
    assertThat(decode.get("best_of_theirs").asText()).isEqualTo("llama.cpp Q4_0");
    JsonNode ours = decode.get("contenders").get(2);
    assertThat(ours.get("ratio_to_best").asDouble()).isCloseTo(0.9, within(1e-9));
    assertThat(ours.get("runs")).hasSize(2);
    assertThat(ours.get("about").get("math").asText()).isEqualTo("exact");
  }

  @Test
  void disturbedRuns_areDroppedAndRepeated() throws IOException {
    program("llama-bench", "echo '[{\"avg_ts\": 50}]'");
    program("llama-batched-bench");
    program("wardrobe", "echo '" + report(45).replace("0.01", "0.5") + "'");
    Files.createFile(dir.resolve("Q4_0.gguf"));
    Run run = script("--case depth --rounds 1 --retries 1 --most-others 40");
    assertThat(run.exit()).as(run.text()).isZero();
    assertThat(run.text().lines().filter(line -> line.contains("others 50.0 %  dropped")))
        .hasSize(2);
    assertThat(run.text())
        .containsPattern("(?m)^depth +wardrobe exact, NF4 head +none undisturbed +0 *$");
  }

  @Test
  void refused_inOneLine() throws IOException {
    assertThat(script("").text())
        .contains("--llama " + dir + ": expected the program llama-bench there, got none");
    program("llama-bench", "echo no such model >&2; exit 3");
    program("llama-batched-bench");
    program("wardrobe");
    assertThat(script("").text())
        .contains("--models " + dir + ": expected files such as Q4_0.gguf");
    Files.createFile(dir.resolve("Q4_0.gguf"));
    assertThat(script("--file Q5_0").text()).contains("--file: " + dir + " has no Q5_0");
    Run run = script("--case decode");
    assertThat(run.exit()).isEqualTo(1);
    assertThat(run.text()).contains("ended with 3: no such model");
  }

  private static String report(double rate) {
    return "{\"math\": \"exact\", \"cases\": [{\"tokens_per_second\": %s, \"runs\": [{\"others\": 0.01}]}]}"
        .formatted(rate);
  }

  private void program(String name, String... lines) throws IOException {
    List<String> all = new ArrayList<>(List.of("#!/bin/sh"));
    all.addAll(List.of(lines));
    Path file = Files.write(dir.resolve(name), all);
    assertThat(file.toFile().setExecutable(true)).isTrue();
  }

  private Run script(String arguments) {
    List<String> command =
        new ArrayList<>(
            List.of(
                "python3",
                ROOT.resolve("deploy/bench/against-llama-cpp").toString(),
                "--llama",
                dir.toString(),
                "--models",
                dir.toString(),
                "--wardrobe",
                dir.resolve("wardrobe").toString()));
    if (!arguments.isEmpty()) {
      command.addAll(List.of(arguments.split(" ")));
    }
    return run(command);
  }

  private Run run(List<String> command) {
    try {
      Path text = dir.resolve("text");
      Process process =
          new ProcessBuilder(command)
              .redirectErrorStream(true)
              .redirectOutput(text.toFile())
              .start();
      try {
        assertThat(process.waitFor(2, TimeUnit.MINUTES)).as("%s ended", command).isTrue();
        return new Run(process.exitValue(), Files.readString(text));
      } finally {
        process.destroyForcibly();
      }
    } catch (IOException e) {
      return new Run(-1, e.toString());
    } catch (InterruptedException e) {
      throw new AssertionError(e);
    }
  }
}
