package dev.wardrobe;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.model.ModelException;
import dev.wardrobe.spi.ServerExtension;
import dev.wardrobe.tenant.KeyFileException;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.FileSystemException;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.ServiceLoader;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Help;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.ParseResult;
import picocli.CommandLine.ScopeType;
import picocli.CommandLine.Spec;
import picocli.CommandLine.UnmatchedArgumentException;

/** The server's command line. */
@Command(
    name = "wardrobe",
    description = "One 4-bit base language model, many LoRA adapters.",
    mixinStandardHelpOptions = true,
    versionProvider = Version.class)
public final class Main implements Runnable {
  /** Commands that compute, and whether they wait until the kernels are compiled. */
  private static final Map<String, Boolean> COMPUTING =
      Map.of("serve", true, "bench", true, "batch", false, "train", true);

  private static final List<Class<?>> COMMANDS =
      List.of(
          ServeCommand.class,
          BatchCommand.class,
          QuantizeCommand.class,
          InspectCommand.class,
          StoreCommand.class,
          KeysCommand.class,
          BenchCommand.class);

  @Spec private CommandSpec spec = CommandSpec.create();

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

  private Main() {}

  /** Runs one command and ends the process with its exit code. */
  public static void main(String[] args) {
    if (!Boolean.getBoolean(CpuBackend.PLAIN)) {
      VectorModule.resolve();
    }
    String command = args.length > 0 ? args[0] : "";
    // Of bench's subcommands none computes for long.
    boolean sub = args.length > 1 && command.equals("bench") && !args[1].startsWith("-");
    Boolean atOnce = sub ? null : COMPUTING.get(command);
    if (atOnce != null) {
      Thread warmUp = new Thread(() -> CpuBackend.warmUp(atOnce), "wardrobe-warm-up-start");
      warmUp.setDaemon(true);
      warmUp.start();
    }
    int exit = commandLine(command, Style.of(Arrays.asList(args))).execute(args);
    // As of what a signal ends, where nobody reads our output any more.
    System.exit(exit == ExitCode.DONE && System.out.checkError() ? ExitCode.PIPE : exit);
  }

  /**
   * The command line; what a command refuses is one line on standard error, and an exit code of
   * {@link ExitCode}.
   */
  public static CommandLine commandLine() {
    return commandLine("", Style.AUTO);
  }

  /**
   * The command line for one command, or for all if there is none of that name: to read what all of
   * them take is a third of a second, in code that is not compiled yet.
   */
  private static CommandLine commandLine(String only, Style style) {
    CommandLine commands = new CommandLine(new Main());
    Class<?> known = null;
    for (Class<?> type : COMMANDS) {
      if (type.getAnnotation(Command.class).name().equals(only)) {
        known = type;
      }
    }
    if (known != null) {
      commands.addSubcommand(known);
    } else {
      COMMANDS.forEach(commands::addSubcommand);
      for (ServerExtension extension : ServiceLoader.load(ServerExtension.class)) {
        extension.commands().forEach(commands::addSubcommand);
      }
    }
    commands.setUsageHelpAutoWidth(true);
    // The case of bench that is named as its subcommand is.
    return commands
        .setColorScheme(Help.defaultColorScheme(style.ansi()))
        .setAllowSubcommandsAsOptionParameters(true)
        .setCaseInsensitiveEnumValuesAllowed(true)
        .setParameterExceptionHandler(Main::refuse)
        .setExecutionExceptionHandler(Main::report);
  }

  @Override
  public void run() {
    throw new ParameterException(spec.commandLine(), "expected a command");
  }

  /** What is wrong, on one line, and where it says how the command is used. */
  private static int refuse(ParameterException e, String[] args) {
    CommandLine command = e.getCommandLine();
    String message = String.valueOf(e.getMessage());
    if (e instanceof UnmatchedArgumentException unmatched && !unmatched.getUnmatched().isEmpty()) {
      String word = unmatched.getUnmatched().getFirst();
      boolean option = word.startsWith("-");
      boolean group = !command.getSubcommands().isEmpty();
      message =
          "unknown %s '%s'".formatted(option ? "option" : group ? "command" : "argument", word);
      List<String> near = unmatched.getSuggestions();
      if ((option || group) && !near.isEmpty()) {
        message += "; did you mean '" + near.getFirst() + "'?";
      }
    }
    say(ExitCode.USAGE, message + help(command), command.getErr(), Arrays.asList(args));
    return ExitCode.USAGE;
  }

  private static String help(CommandLine command) {
    return " (see '" + command.getCommandSpec().qualifiedName() + " --help')";
  }

  private static int report(Exception e, CommandLine commandLine, ParseResult parsed) {
    PrintWriter err = commandLine.getErr();
    List<String> args = parsed.originalArgs();
    String message =
        switch (e) {
          case StartException s -> s.line();
          case FileSystemException f -> StartException.explain(f);
          case ModelException m -> m.getMessage();
          case AdapterException a -> a.getMessage();
          case KeyFileException k -> k.getMessage();
          case IOException i -> i.getMessage();
          default -> "this should not have happened, and is worth a report: " + e;
        };
    int exit = e instanceof StartException s ? s.exit() : ExitCode.FAILED;
    say(exit, exit == ExitCode.USAGE ? message + help(commandLine) : message, err, args);
    String debug = System.getenv("WARDROBE_DEBUG");
    boolean known =
        e instanceof StartException
            || e instanceof IOException
            || e instanceof ModelException
            || e instanceof KeyFileException
            || e instanceof AdapterException;
    if (!known || args.contains("--verbose") || (debug != null && !debug.isEmpty())) {
      e.printStackTrace(err);
      err.flush();
    }
    return exit;
  }

  /** One line for people, or with {@code --json} one object for scripts. */
  private static void say(int exit, @Nullable String message, PrintWriter err, List<String> args) {
    String line = String.valueOf(message).strip().replaceAll("\\s*\\R\\s*", " ");
    if (args.contains("--json")) {
      ObjectNode root = new ObjectMapper().createObjectNode();
      String code =
          switch (exit) {
            case ExitCode.USAGE -> "usage";
            case ExitCode.NOT_FOUND -> "not_found";
            default -> "failed";
          };
      root.putObject("error").put("code", code).put("message", line).put("exit", exit);
      err.println(root);
    } else {
      err.println(Style.of(args).red("wardrobe:") + " " + line);
    }
    err.flush();
  }
}
