package dev.wardrobe.client.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.lang.reflect.Field;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.function.Supplier;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import picocli.CommandLine;

/** What all commands of all jars have in common: the client's, the server's and the trainer's. */
final class EveryCommandTest {
  /** Output that nobody parses but a shell. */
  private static final Set<String> WITHOUT_JSON = Set.of("wardrobe completion");

  private static final ObjectMapper JSON = new ObjectMapper();

  /**
   * A command, and the command line that has it.
   *
   * @param words without the first
   */
  private record Every(String name, List<String> words, Supplier<CommandLine> commands) {
    @Override
    public String toString() {
      return name;
    }
  }

  private record Run(int exit, String out, String err) {}

  static Stream<Every> commands() {
    List<Every> all = new ArrayList<>();
    for (Supplier<CommandLine> commands :
        List.<Supplier<CommandLine>>of(() -> Cli.commandLine(), dev.wardrobe.Main::commandLine)) {
      walk(commands.get(), List.of(), commands, all);
    }
    return all.stream();
  }

  private static void walk(
      CommandLine command, List<String> words, Supplier<CommandLine> commands, List<Every> all) {
    if (command.getCommandSpec().usageMessage().hidden()) {
      return;
    }
    all.add(new Every(command.getCommandSpec().qualifiedName(), words, commands));
    command
        .getSubcommands()
        .forEach(
            (name, sub) -> {
              List<String> below = new ArrayList<>(words);
              below.add(name);
              walk(sub, below, commands, all);
            });
  }

  private static Run run(Every command, String... more) {
    CommandLine commands = command.commands().get();
    StringWriter out = new StringWriter();
    StringWriter err = new StringWriter();
    commands.setOut(new PrintWriter(out, true));
    commands.setErr(new PrintWriter(err, true));
    List<String> words = new ArrayList<>(command.words());
    words.addAll(List.of(more));
    return new Run(commands.execute(words.toArray(String[]::new)), out.toString(), err.toString());
  }

  /** Whether it does something itself, rather than have commands that do. */
  private static boolean runs(Every command) {
    Object object = at(command).getCommandSpec().userObject();
    return !(object instanceof Runnable) && !WITHOUT_JSON.contains(command.name());
  }

  private static CommandLine at(Every command) {
    CommandLine at = command.commands().get();
    for (String word : command.words()) {
      at = at.getSubcommands().get(word);
    }
    return at;
  }

  @Test
  void commands_areThoseThatAreDocumented() throws Exception {
    String documentation =
        Files.readString(Path.of(System.getProperty("wardrobe.root"), "docs", "cli.md"));
    Set<String> names = new TreeSet<>();
    commands().filter(EveryCommandTest::runs).forEach(each -> names.add(each.name()));
    assertThat(names).hasSizeGreaterThan(30);
    for (String name : names) {
      assertThat(documentation).contains("`" + name.substring("wardrobe ".length()));
    }
  }

  @Test
  void commandsOfTheOtherJar_areNamedByHelp() {
    Set<String> names = dev.wardrobe.Main.commandLine().getSubcommands().keySet();
    assertThat(Cli.ON_THIS_MACHINE).containsExactlyInAnyOrderElementsOf(names);
  }

  @ParameterizedTest
  @MethodSource("commands")
  void help_isPrinted(Every command) {
    Run run = run(command, "--help");
    assertThat(run.exit()).isZero();
    assertThat(run.out()).contains("--help").contains(command.name());
    assertThat(run.err()).isEmpty();
  }

  @ParameterizedTest
  @MethodSource("commands")
  void unknownOption_isTwo_onOneLine(Every command) {
    Run run = run(command, "--no-such-option-here");
    assertThat(run.exit()).isEqualTo(ExitCode.USAGE);
    assertThat(run.out()).isEmpty();
    assertThat(run.err().lines())
        .singleElement()
        .asString()
        .startsWith("wardrobe: ")
        .contains(command.name() + " --help");
  }

  @ParameterizedTest
  @MethodSource("commands")
  void errors_areJsonWhereAskedFor(Every command) throws Exception {
    if (!runs(command)) {
      return;
    }
    Run run = run(command, "--no-such-option-here", "--json");
    assertThat(run.exit()).isEqualTo(ExitCode.USAGE);
    JsonNode error = JSON.readTree(run.err()).get("error");
    assertThat(error.get("code").asText()).isEqualTo("usage");
    assertThat(error.get("exit").asInt()).isEqualTo(ExitCode.USAGE);
    assertThat(error.get("message").asText()).isNotBlank();
  }

  @ParameterizedTest
  @MethodSource("commands")
  void json_isTaken(Every command) {
    if (!runs(command)) {
      return;
    }
    assertThat(at(command).getCommandSpec().findOption("--json")).isNotNull();
  }

  @ParameterizedTest
  @MethodSource("commands")
  void color_isTaken_andAnythingElseRefused(Every command) {
    assertThat(run(command, "--color", "never", "--help").exit()).isZero();
    assertThat(run(command, "--color", "mauve").exit()).isEqualTo(ExitCode.USAGE);
    Run run = run(command, "--color", "always", "--no-such-option-here");
    assertThat(run.err()).startsWith("\u001b[31mwardrobe:\u001b[0m ");
  }

  @Test
  void exitCodes_areThoseThatAreDocumented_andEachMeansOneThing() throws Exception {
    Map<Integer, String> codes = new TreeMap<>();
    for (Class<?> type : List.of(ExitCode.class, dev.wardrobe.ExitCode.class)) {
      for (Field field : type.getDeclaredFields()) {
        if (field.getType() == int.class) {
          field.setAccessible(true);
          String before = codes.put(field.getInt(null), field.getName());
          assertThat(before).isIn(null, field.getName());
        }
      }
    }
    String documentation =
        Files.readString(Path.of(System.getProperty("wardrobe.root"), "docs", "cli.md"));
    Set<Integer> documented = new TreeSet<>();
    Pattern.compile("^\\| (\\d+) \\|", Pattern.MULTILINE)
        .matcher(documentation)
        .results()
        .forEach(row -> documented.add(Integer.valueOf(row.group(1))));
    assertThat(documented).isEqualTo(codes.keySet());
  }

  @Test
  void valueThatCannotBe_isWrongUsage_onThisMachineToo() throws Exception {
    Every server = new Every("wardrobe", List.of(), dev.wardrobe.Main::commandLine);
    for (String wrong :
        List.of(
            "serve --port 70000",
            "serve --drain-seconds -1",
            "serve --log-format xml",
            "serve --metrics-without-key",
            "inspect . --math wrong",
            "quantize --model a --out b --type int3",
            "store gc --store a --grace never",
            "bench --shape round",
            "bench adapters --out a --count 0")) {
      Run run = run(server, wrong.split(" "));
      assertThat(run.exit()).as(wrong).isEqualTo(ExitCode.USAGE);
      assertThat(run.err().lines()).as(wrong).singleElement().asString().contains("--help");
    }
    Run json = run(server, "serve", "--port", "70000", "--json");
    assertThat(JSON.readTree(json.err()).at("/error/code").asText()).isEqualTo("usage");
  }

  @Test
  void words_thatAreNearlyRight_areSuggested() {
    Every root = commands().findFirst().orElseThrow();
    assertThat(run(root, "trian").err()).contains("did you mean 'train'?");
    assertThat(run(root, "adapter").err()).contains("did you mean 'adapters'?");
    assertThat(run(root, "generate", "--adaptr", "x", "y").err())
        .contains("did you mean '--adapter'?");
    assertThat(run(root, "adapters", "lst").err()).contains("did you mean 'list'?");
    assertThat(run(root, "xyzzy").err()).doesNotContain("did you mean");
  }

  @Test
  void help_ofACommand_isThatCommands() {
    assertThat(Cli.words("help")).containsExactly("--help");
    assertThat(Cli.words("help", "adapters", "list")).containsExactly("adapters", "list", "--help");
    assertThat(Cli.words("generate", "help")).containsExactly("generate", "help");
  }

  @Test
  void color_isLeftOut_unlessAsked() {
    Every root = commands().findFirst().orElseThrow();
    assertThat(run(root, "--help").out()).doesNotContain("\u001b");
    CommandLine always = Cli.commandLine("--color", "always", "--help");
    StringWriter out = new StringWriter();
    always.setOut(new PrintWriter(out, true));
    assertThat(always.execute("--color", "always", "--help")).isZero();
    assertThat(out.toString()).contains("\u001b[");
  }
}
