package dev.wardrobe;

import static org.assertj.core.api.Assertions.assertThat;

import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.bench.AdapterSet;
import dev.wardrobe.engine.GenerationTask;
import dev.wardrobe.serve.AnswerCollector;
import dev.wardrobe.v1.GenerateRequest;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import picocli.CommandLine;

@Timeout(120)
final class BenchAdaptersCommandTest {
  private static final Path MODEL =
      Path.of(System.getProperty("wardrobe.root"), "deploy", "models", "demo", "base");

  private final StringWriter out = new StringWriter();
  private final StringWriter err = new StringWriter();

  @TempDir Path temp;

  private int run(String... arguments) {
    CommandLine commands = Main.commandLine();
    commands.setOut(new PrintWriter(out, true));
    commands.setErr(new PrintWriter(err, true));
    return commands.execute(arguments);
  }

  @Test
  void canaries_answerEachOtherwiseThanAllOthers_andAreRemovedAgain() throws Exception {
    String folder = temp.resolve("canaries").toString();
    int code =
        run(
            ("bench adapters --canaries --count 12 --rank 2,4 --seed 3 --model "
                    + MODEL
                    + " --out "
                    + folder)
                .split(" "));
    assertThat(err.toString()).isEmpty();
    assertThat(code).isZero();
    assertThat(out.toString()).contains("12 adapters, a0000 to a0011", "all answers differ");

    AdapterSet set = AdapterSet.read(Path.of(folder));
    assertThat(set.prompts()).hasSize(4);
    ModelArguments arguments = new ModelArguments(0);
    new CommandLine(arguments).parseArgs("--model", MODEL.toString());
    try (Stack stack = new Stack(arguments, List.of(set.folder()), AdapterOptions.DEFAULT)) {
      for (List<Integer> prompt : set.prompts()) {
        Set<List<Integer>> answers = new HashSet<>();
        for (int i = -1; i < set.count(); i++) {
          AnswerCollector answer = new AnswerCollector();
          GenerateRequest request =
              GenerateRequest.newBuilder()
                  .setAdapter(i < 0 ? "" : set.name(i))
                  .addAllTokenIds(prompt)
                  .setTemperature(0)
                  .setMaxTokens(4)
                  .setIgnoreEos(true)
                  .build();
          stack.conversation().start(request, GenerationTask.NO_DEADLINE, answer);
          assertThat(answers.add(answer.result().get().getTokenIdsList()))
              .as("adapter %d, prompt %s", i, prompt)
              .isTrue();
        }
      }
    }
    assertThat(run("bench", "adapters", "--out", folder, "--remove")).isZero();
    assertThat(Path.of(folder)).doesNotExist();
  }

  @Test
  void adaptersThatChangeTooLittle_areRefusedAsCanaries() {
    int code =
        run(
            ("bench adapters --canaries --count 3 --scale 1e-6 --model "
                    + MODEL
                    + " --out "
                    + temp.resolve("same"))
                .split(" "));
    assertThat(code).isEqualTo(1);
    assertThat(err.toString().lines()).singleElement().asString().contains("--scale");
  }

  @Test
  void wrongArguments_areOneLine_andNothingIsMade() throws Exception {
    Path taken = Files.createDirectory(temp.resolve("taken"));
    Files.writeString(taken.resolve("mine"), "");
    String model = " --model " + MODEL;
    for (String[] wrong :
        new String[][] {
          {"--out " + temp.resolve("new") + model + " --count 0", "--count"},
          {"--out " + temp.resolve("new") + model + " --rank 5000", "--rank"},
          {"--out " + temp.resolve("new") + model + " --scale -1", "--scale"},
          {"--out " + temp.resolve("new") + " --model " + taken, "config.json"},
          {"--out " + taken + model, "mine"},
          {"--out " + temp.resolve("new") + " --remove", AdapterSet.FILE},
        }) {
      err.getBuffer().setLength(0);
      // What cannot be is wrong usage, whatever the files are like; the rest depends on them.
      assertThat(run(("bench adapters " + wrong[0]).split(" ")))
          .as(wrong[0])
          .isEqualTo(wrong[1].startsWith("--") ? 2 : 1);
      assertThat(err.toString().lines()).singleElement().asString().contains(wrong[1]);
    }
    assertThat(temp.resolve("new")).doesNotExist();
    assertThat(taken).isDirectoryContaining(path -> path.endsWith("mine"));
  }
}
