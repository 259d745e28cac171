package dev.wardrobe;

import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.model.ModelException;
import dev.wardrobe.spi.ServerExtension;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.FileSystemException;
import java.util.ServiceLoader;
import java.util.Set;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.ParseResult;
import picocli.CommandLine.Spec;

/** The server's command line. */
@Command(
    name = "wardrobe",
    description = "One 4-bit base language model, many LoRA adapters.",
    mixinStandardHelpOptions = true,
    versionProvider = Version.class,
    subcommands = {
      ServeCommand.class,
      BatchCommand.class,
      QuantizeCommand.class,
      InspectCommand.class,
      BenchCommand.class
    })
public final class Main implements Runnable {
  /** Commands whose first token comes sooner the sooner the kernels are compiled. */
  private static final Set<String> COMPUTING = Set.of("serve", "batch", "bench");

  @Spec private CommandSpec spec = CommandSpec.create();

  private Main() {}

  /** Runs one command and ends the process with its exit code. */
  public static void main(String[] args) {
    if (!Boolean.getBoolean(CpuBackend.PLAIN)) {
      VectorModule.resolve();
    }
    if (args.length > 0 && COMPUTING.contains(args[0])) {
      CpuBackend.warmUp();
    }
    System.exit(commandLine().execute(args));
  }

  /** The command line; what a command refuses is one line on standard error and exit code 1. */
  static CommandLine commandLine() {
    CommandLine commands = new CommandLine(new Main());
    for (ServerExtension extension : ServiceLoader.load(ServerExtension.class)) {
      extension.commands().forEach(commands::addSubcommand);
    }
    return commands.setExecutionExceptionHandler(Main::report);
  }

  @Override
  public void run() {
    throw new ParameterException(spec.commandLine(), "expected a command");
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
