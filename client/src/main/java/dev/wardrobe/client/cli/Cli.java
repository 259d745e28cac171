package dev.wardrobe.client.cli;

import io.grpc.StatusRuntimeException;
import java.util.logging.Level;
import java.util.logging.Logger;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;

/**
 * The commands that talk to a server.
 *
 * <p>Exit codes: 0 done, 1 the server or the command failed, 2 wrong usage.
 */
@Command(
    name = "wardrobe",
    description = "One 4-bit base language model, many LoRA adapters.",
    mixinStandardHelpOptions = true,
    versionProvider = Version.class,
    footer = {
      "",
      "On this machine, without a server (each explains itself with --help):",
      "train, plan, serve, batch, quantize, inspect, store, bench",
      "",
      "Exit codes: 0 done, 1 failed, 2 wrong usage."
    },
    subcommands = {
      DemoCommand.class,
      GenerateCommand.class,
      ChatCommand.class,
      EmbedCommand.class,
      AdaptersCommand.class,
      InfoCommand.class,
      BenchCommand.class
    })
public final class Cli implements Runnable {
  /** Held, since a logger that nobody holds forgets its level. */
  private static final Logger GRPC = Logger.getLogger("io.grpc");

  @Spec private CommandSpec spec;

  private Cli() {}

  @Override
  public void run() {
    throw new ParameterException(spec.commandLine(), "a command is missing");
  }

  /** The command line with its error handling. */
  static CommandLine commandLine() {
    return new CommandLine(new Cli())
        .setCaseInsensitiveEnumValuesAllowed(true)
        .setExecutionExceptionHandler(
            (failure, command, parsed) -> {
              command.getErr().println("wardrobe: " + explain(failure));
              return 1;
            });
  }

  /** One line for people. */
  static String explain(Throwable failure) {
    if (failure instanceof StatusRuntimeException status) {
      String description = status.getStatus().getDescription();
      return switch (status.getStatus().getCode()) {
        // A server that answers sends no exception.
        case UNAVAILABLE ->
            description != null && status.getStatus().getCause() == null
                ? description
                : "no server answers"
                    + (description == null
                        ? ""
                        : " (" + description.lines().findFirst().orElse("") + ")")
                    + "; start one with 'wardrobe serve', or name another with --server HOST:PORT";
        case UNIMPLEMENTED -> "the server does not know this call; is it of the same version?";
        default -> description == null ? status.getStatus().getCode().toString() : description;
      };
    }
    String message = failure.getMessage();
    return message == null ? failure.toString() : message;
  }

  public static void main(String[] args) {
    // gRPC tells of its transport's choices at level INFO, on standard error, where only our own
    // lines belong.
    GRPC.setLevel(Level.WARNING);
    System.exit(commandLine().execute(args));
  }
}
