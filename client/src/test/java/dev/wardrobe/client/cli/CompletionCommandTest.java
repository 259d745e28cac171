package dev.wardrobe.client.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import picocli.CommandLine;

/** The scripts, run by the shell that they are for. */
@Timeout(60)
final class CompletionCommandTest {
  @TempDir private Path folder;

  private static String script(String shell) {
    StringWriter out = new StringWriter();
    CommandLine commands = Cli.commandLine();
    commands.setOut(new PrintWriter(out, true));
    assertThat(commands.execute("completion", shell)).isZero();
    return out.toString();
  }

  /** What bash offers for the last of these words; a wardrobe that knows two adapters answers. */
  private List<String> offers(String... words) throws Exception {
    Path program = folder.resolve("wardrobe");
    Files.writeString(program, "#!/bin/sh\necho \"$@\" > \"$0.asked\"\nprintf 'pirate\\nsql\\n'\n");
    assertThat(program.toFile().setExecutable(true)).isTrue();
    Path script =
        Files.writeString(
            folder.resolve("test.bash"),
            script("bash")
                + "COMP_WORDS=('"
                + program
                + "' "
                + String.join(" ", words)
                + ")\nCOMP_CWORD="
                + words.length
                + "\n_wardrobe\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n");
    Process bash =
        new ProcessBuilder("bash", "-u", script.toString())
            .directory(folder.toFile())
            .redirectError(ProcessBuilder.Redirect.INHERIT)
            .start();
    String said = new String(bash.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertThat(bash.waitFor()).isZero();
    return said.lines().toList();
  }

  @Test
  void bash_completesCommandsOptionsValuesAndAdapters() throws Exception {
    Assumptions.assumeTrue(Files.isExecutable(Path.of("/bin/bash")));
    assertThat(offers("''")).contains("generate", "train", "serve", "adapters", "plan");
    assertThat(offers("ge")).containsExactly("generate");
    assertThat(offers("adapters", "p")).containsExactly("pin", "publish");
    assertThat(offers("store", "''")).containsExactly("export", "gc", "import", "list", "verify");
    assertThat(offers("bench", "''")).contains("load", "churn", "adapters", "device");
    assertThat(offers("train", "--opt")).isNotEmpty();
    assertThat(offers("generate", "--ad")).containsExactly("--adapter");
    assertThat(offers("generate", "--adapter", "p")).containsExactly("pirate");
    assertThat(folder.resolve("wardrobe.asked")).content().startsWith("adapters list --names");
    assertThat(offers("adapters", "show", "''")).containsExactly("pirate", "sql");
    assertThat(offers("embed", "--pooling", "m")).containsExactly("mean");
    assertThat(offers("completion", "''")).containsExactly("bash", "zsh", "fish");
    Files.writeString(folder.resolve("some.pem"), "");
    assertThat(offers("info", "--tls-ca", "so")).containsExactly("some.pem");
    // A value is no command.
    assertThat(offers("generate", "--seed", "''")).containsExactly("");
  }

  @Test
  void others_haveEveryCommand() {
    String fish = script("fish");
    assertThat(fish)
        .contains("__wardrobe_at \"\"' -a 'train'")
        .contains("__wardrobe_at store' -a 'gc'")
        .contains("-l adapter -r -a '(__wardrobe_adapters)'");
    // No quote that the shell would take for its end.
    assertThat(fish.lines().filter(line -> line.startsWith("complete")))
        .allSatisfy(line -> assertThat(line.chars().filter(c -> c == '\'').count() % 2).isZero());
    assertThat(script("zsh")).contains("bashcompinit", "_wardrobe");
  }

  @Test
  void spelling_isNearOrNothing() {
    List<String> known = List.of("pirate", "sql", "support", "support-de");
    assertThat(Spelling.closest("pirat", known)).isEqualTo("pirate");
    assertThat(Spelling.closest("pirtae", known)).isEqualTo("pirate");
    assertThat(Spelling.closest("SQL", known)).isEqualTo("sql");
    assertThat(Spelling.closest("supprot", known)).isEqualTo("support");
    assertThat(Spelling.closest("json", known)).isNull();
    assertThat(Spelling.closest("", known)).isNull();
  }

  @Test
  void progressBar_isNarrowerThanTheTerminal() {
    for (int width : new int[] {1, 10, 40, 80, 200}) {
      assertThat(ProgressBar.line("publishing support", 3 << 20, 10 << 20, 2, width).length())
          .isLessThan(Math.max(width, 1));
    }
    assertThat(ProgressBar.line("publishing a", 5 << 20, 10 << 20, 2, 100))
        .contains(" 50 %", "5.0 of 10.0 MiB", "2.5 MiB/s", "###", "...");
  }
}
