package dev.wardrobe;

import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.model.ModelException;
import dev.wardrobe.spi.ServerExtension;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.FileSystemException;
import java.util.List;
import java.util.Map;
import java.util.ServiceLoader;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.IParameterExceptionHandler;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.ParseResult;
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

  /** Commands with more options than this do not show all of them with each mistake. */
  private static final int MOST_SHOWN = 40;

  private static final List<Class<?>> COMMANDS =
      List.of(
          ServeCommand.class,
          BatchCommand.class,
          QuantizeCommand.class,
          InspectCommand.class,
          StoreCommand.class,
          BenchCommand.class);

  @Spec private CommandSpec spec = CommandSpec.create();

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
    System.exit(commandLine(command).execute(args));
  }

  /** The command line; what a command refuses is one line on standard error and exit code 1. */
  static CommandLine commandLine() {
    return commandLine("");
  }

  /**
   * The command line for one command, or for all if there is none of that name: to read what all of
   * them take is a third of a second, in code that is not compiled yet.
   */
  private static CommandLine commandLine(String only) {
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
    IParameterExceptionHandler usual = commands.getParameterExceptionHandler();
    // The case of bench that is named as its subcommand is.
    return commands
        .setAllowSubcommandsAsOptionParameters(true)
        .setParameterExceptionHandler((e, args) -> refuse(e, args, usual))
        .setExecutionExceptionHandler(Main::report);
  }

  @Override
  public void run() {
    throw new ParameterException(spec.commandLine(), "expected a command");
  }

  /** What is wrong, and how the command is used, unless that would push the former out of sight. */
  private static int refuse(ParameterException e, String[] args, IParameterExceptionHandler usual)
      throws Exception {
    CommandLine command = e.getCommandLine();
    if (command.getCommandSpec().options().size() <= MOST_SHOWN) {
      return usual.handleParseException(e, args);
    }
    PrintWriter err = command.getErr();
    err.println("wardrobe: " + e.getMessage());
    UnmatchedArgumentException.printSuggestions(e, err);
    err.println("All options: wardrobe " + command.getCommandName() + " --help");
    err.flush();
    return command.getCommandSpec().exitCodeOnInvalidInput();
  }

  private static int report(Exception e, CommandLine commandLine, ParseResult parsed) {
    PrintWriter err = commandLine.getErr();
    switch (e) {
      case StartException s -> err.println("wardrobe: " + s.line());
      case FileSystemException f -> err.println("wardrobe: " + StartException.explain(f));
      case ModelException m -> err.println("wardrobe: " + m.getMessage());
      case AdapterException a -> err.println("wardrobe: " + a.getMessage());
      case IOException i -> err.println("wardrobe: " + i.getMessage());
      default -> e.printStackTrace(err);
    }
    err.flush();
    return 1;
  }
}
