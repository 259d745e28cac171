package dev.wardrobe.client.cli;

import java.io.PrintWriter;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.logging.Level;
import java.util.logging.Logger;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Help;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.ScopeType;
import picocli.CommandLine.Spec;
import picocli.CommandLine.UnmatchedArgumentException;

/** The commands that talk to a server. */
@Command(
    name = "wardrobe",
    description = "One 4-bit base language model, many LoRA adapters.",
    mixinStandardHelpOptions = true,
    synopsisHeading = "Usage: ",
    commandListHeading = "%nWith a server:%n",
    versionProvider = Version.class,
    footer = {
      "",
      "On this machine, without a server:",
      "  serve       Serve a base and its adapters: gRPC, HTTP and a page.",
      "  batch       Answer a file of requests.",
      "  train       Train an adapter (QLoRA).",
      "  plan        Say what training takes, and what fits.",
      "  quantize    Quantize a model to 4 bits.",
      "  inspect     Say what a model or an adapter holds.",
      "  store       Look after a store of adapters.",
      "  keys        Create, list and revoke API keys.",
      "  bench       Measure this machine (bench load, churn: a server).",
      "",
      "First: wardrobe serve, and in another terminal: wardrobe chat --adapter pirate",
      "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no server, 4 not found,",
      "5 refused, 6 busy or too late, 130 interrupted."
    },
    subcommands = {
      ChatCommand.class,
      GenerateCommand.class,
      EmbedCommand.class,
      AdaptersCommand.class,
      InfoCommand.class,
      BenchCommand.class,
      DemoCommand.class,
      CompletionCommand.class,
      VersionCommand.class
    })
public final class Cli implements Runnable {
  /** Commands of the other jar, to be suggested. */
  static final List<String> ON_THIS_MACHINE =
      List.of("serve", "batch", "train", "plan", "quantize", "inspect", "store", "keys", "bench");

  /** Held, since a logger that nobody holds forgets its level. */
  private static final Logger GRPC = Logger.getLogger("io.grpc");

  @Spec private CommandSpec spec;

  @Option(
      names = "--color",
      paramLabel = "auto|always|never",
      scope = ScopeType.INHERIT,
      description = "Colour; auto: on a terminal without NO_COLOR.")
  @SuppressWarnings("UnusedVariable") // Style reads it before anything else is read
  private Style color = Style.AUTO;

  @Option(
      names = "--verbose",
      scope = ScopeType.INHERIT,
      description = "With an error, say where it happened ($WARDROBE_DEBUG).")
  @SuppressWarnings("UnusedVariable") // looked for among the words, since it is for errors
  private boolean verbose;

  private Cli() {}

  @Override
  public void run() {
    throw new ParameterException(spec.commandLine(), "a command is missing");
  }

  /** The command line with its error handling. */
  static CommandLine commandLine(String... words) {
    Style style = Style.of(words);
    CommandLine commands =
        new CommandLine(new Cli())
            .setCaseInsensitiveEnumValuesAllowed(true)
            .setColorScheme(Help.defaultColorScheme(style.ansi()))
            .setParameterExceptionHandler((e, given) -> refuse(e, given))
            .setExecutionExceptionHandler(
                (failure, command, parsed) ->
                    failure instanceof ClosedPipeException
                        ? ExitCode.PIPE
                        : report(
                            Failure.of(failure),
                            failure,
                            command.getErr(),
                            parsed.originalArgs().toArray(String[]::new)));
    commands.setUsageHelpAutoWidth(Terminal.out());
    return commands;
  }

  private static int refuse(ParameterException e, String[] words) {
    CommandLine command = e.getCommandLine();
    String message = String.valueOf(e.getMessage());
    if (e instanceof UnmatchedArgumentException unmatched && !unmatched.getUnmatched().isEmpty()) {
      String word = unmatched.getUnmatched().getFirst();
      boolean group = !command.getSubcommands().isEmpty();
      boolean option = word.startsWith("-");
      message =
          "unknown %s '%s'".formatted(option ? "option" : group ? "command" : "argument", word);
      String meant = option || group ? meant(word, command) : null;
      if (meant != null) {
        message += "; did you mean '" + meant + "'?";
      }
    }
    message += " (see '" + command.getCommandSpec().qualifiedName() + " --help')";
    return report(Failure.usage(message), e, command.getErr(), words);
  }

  private static @Nullable String meant(String word, CommandLine command) {
    List<String> known = new ArrayList<>();
    if (word.startsWith("-")) {
      command.getCommandSpec().options().forEach(each -> known.addAll(List.of(each.names())));
    } else {
      known.addAll(command.getSubcommands().keySet());
      if (command.getParent() == null) {
        known.addAll(ON_THIS_MACHINE);
      }
    }
    return Spelling.closest(word, known);
  }

  private static int report(Failure failure, Throwable cause, PrintWriter err, String[] words) {
    List<String> given = Arrays.asList(words);
    if (given.contains("--json")) {
      err.println(failure.json());
    } else {
      err.println(Style.of(words).red("wardrobe:", Terminal.err()) + " " + failure.message());
    }
    String debug = System.getenv("WARDROBE_DEBUG");
    if (given.contains("--verbose") || (debug != null && !debug.isEmpty())) {
      cause.printStackTrace(err);
    }
    err.flush();
    return failure.exit();
  }

  /** As they are meant: {@code help COMMAND} is {@code COMMAND --help}. */
  static String[] words(String... args) {
    if (args.length == 0 || !args[0].equals("help")) {
      return args;
    }
    String[] words = Arrays.copyOfRange(args, 1, args.length + 1);
    words[args.length - 1] = "--help";
    return words;
  }

  public static void main(String[] args) {
    // gRPC tells of its transport's choices and failures on standard error, where only our own
    // lines belong, and its exceptions say as much.
    GRPC.setLevel(Arrays.asList(args).contains("--verbose") ? Level.INFO : Level.OFF);
    String[] words = words(args);
    int exit = commandLine(words).execute(words);
    System.exit(exit == ExitCode.DONE && System.out.checkError() ? ExitCode.PIPE : exit);
  }
}
