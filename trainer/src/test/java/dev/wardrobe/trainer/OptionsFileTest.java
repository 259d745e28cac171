package dev.wardrobe.trainer;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;

final class OptionsFileTest {
  @TempDir private Path folder;

  /** The options of a run, without the run. */
  @Command(name = "train", preprocessor = OptionsFile.class, mixinStandardHelpOptions = true)
  private static final class Parsed {
    @Mixin private final TrainArguments arguments = new TrainArguments();

    @Option(names = "--config")
    private Path config;
  }

  private TrainArguments parse(String yaml, String... typed) throws IOException {
    Path file = folder.resolve("run.yaml");
    Files.writeString(file, yaml);
    String[] all = new String[typed.length + 2];
    System.arraycopy(typed, 0, all, 0, typed.length);
    all[typed.length] = "--config";
    all[typed.length + 1] = file.toString();
    Parsed parsed = new Parsed();
    new CommandLine(parsed).parseArgs(all);
    return parsed.arguments;
  }

  @Test
  void file_saysWhatOptionsSay() throws IOException {
    TrainArguments arguments =
        parse(
            """
            # A run
            data: [a.jsonl, b.jsonl]
            out: there
            rank: 8
            lr: 1e-4
            use-dora: true
            use-rslora: false
            packing: true
            target-modules: [q_proj, v_proj]
            layers-to-transform: [0, 2]
            rank-pattern: {"q_proj": 4, "layers.0.*v_proj": 2}
            alpha-pattern:
              q_proj: 1.5
            sample-prompt:
              - "One, two"
              - "Three = 3"
            format: null
            seed: 7
            """);
    assertThat(arguments.data.files).containsExactly(Path.of("a.jsonl"), Path.of("b.jsonl"));
    assertThat(arguments.output.folder).isEqualTo(Path.of("there"));
    assertThat(arguments.adapter.rank).isEqualTo(8);
    assertThat(arguments.steps.rate).isEqualTo(1e-4);
    assertThat(arguments.adapter.dora).isTrue();
    assertThat(arguments.adapter.rsLora).isFalse();
    assertThat(arguments.data.packing).isTrue();
    assertThat(arguments.adapter.targets).containsExactly("q_proj", "v_proj");
    assertThat(arguments.adapter.layers).containsExactly(0, 2);
    assertThat(arguments.adapter.ranks).isEqualTo(Map.of("q_proj", 4, "layers.0.*v_proj", 2));
    assertThat(arguments.adapter.alphas).isEqualTo(Map.of("q_proj", 1.5));
    assertThat(arguments.watch.prompts).containsExactly("One, two", "Three = 3");
    assertThat(arguments.data.format).isNull();
    assertThat(arguments.steps.seed).isEqualTo(7);
    // What neither says.
    assertThat(arguments.steps.batchSize).isEqualTo(4);
  }

  @Test
  void commandLine_hasPrecedence() throws IOException {
    TrainArguments arguments =
        parse(
            "rank: 8\nlr: 0.1\ntarget-modules: [q_proj]\nsample-prompt: [a, b]\n",
            "--rank",
            "4",
            "--lr=0.2",
            "--sample-prompt",
            "mine",
            "--target-modules=k_proj,v_proj");
    assertThat(arguments.adapter.rank).isEqualTo(4);
    assertThat(arguments.steps.rate).isEqualTo(0.2);
    assertThat(arguments.watch.prompts).containsExactly("mine");
    assertThat(arguments.adapter.targets).isEqualTo(List.of("k_proj", "v_proj"));
  }

  @Test
  void empty_isNothing() throws IOException {
    assertThat(parse("# nothing\n").adapter.rank).isNull();
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      value = {
        "learning_rate: 1 | got 'learning_rate'",
        "rank: [1, 2] | rank",
        "rank: {a: 1} | expected a number or a text",
        "rank: x | 'x' is not an int",
        "use-dora: 3 | expected true or false, got 3",
        "config: other.yaml | cannot name another",
        "help: true | got 'help'",
        "- rank | expected lines of NAME: VALUE",
        "rank: [ | expected YAML",
        "{rank: 1, rank: 2} | Duplicate",
        "data: [[a]] | expected a number or a text",
      })
  void wrong_isSaid(String yaml, String message) {
    assertThatThrownBy(() -> parse(yaml))
        .isInstanceOf(ParameterException.class)
        .hasMessageContaining(message);
  }

  @Test
  void twice_isSaid() {
    assertThatThrownBy(() -> parse("", "--lr=1", "--rank=1", "--lr", "2"))
        .isInstanceOf(ParameterException.class)
        .hasMessageContaining("--lr: expected once, got 2 times");
  }

  @Test
  void missing_isSaid() {
    assertThatThrownBy(
            () -> new CommandLine(new Parsed()).parseArgs("--config=" + folder.resolve("none")))
        .isInstanceOf(ParameterException.class)
        .hasMessageContaining("expected a file, got none");
    assertThatThrownBy(() -> new CommandLine(new Parsed()).parseArgs("--config=a", "--config=b"))
        .isInstanceOf(ParameterException.class)
        .hasMessageContaining("--config: expected once");
  }
}
