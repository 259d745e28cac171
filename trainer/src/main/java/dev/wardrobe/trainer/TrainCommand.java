package dev.wardrobe.trainer;

import dev.wardrobe.BaseArguments;
import dev.wardrobe.StartException;
import java.io.IOException;
import java.nio.file.Path;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code wardrobe train}. */
@Command(
    name = "train",
    preprocessor = OptionsFile.class,
    sortOptions = false,
    usageHelpWidth = 100,
    customSynopsis = {"wardrobe train --data FILE --out DIR [--model DIR] [OPTION]..."},
    description = {
      "Train a LoRA adapter over a frozen 4-bit base (QLoRA).",
      "",
      "--data and --out are all it takes; the rest has defaults that suit a first run."
    },
    footer = {
      "",
      "Ctrl-C ends a run at a checkpoint, with exit code 130; the same command with --resume goes"
          + " on",
      "from there, to the same bits. Exit code 0 if the adapter was written, 1 if not, 2 for"
          + " options",
      "that cannot be read."
    },
    mixinStandardHelpOptions = true)
final class TrainCommand implements Callable<Integer> {
  @Spec private CommandSpec spec = CommandSpec.create();

  @Mixin private final BaseArguments base = new BaseArguments();

  @Option(
      names = OptionsFile.OPTION,
      paramLabel = "FILE",
      description =
          "Options in YAML, by their names without dashes, lists as lists; what is given here as"
              + " well has precedence.")
  @SuppressWarnings("UnusedVariable") // OptionsFile reads it before anything else is read
  private @Nullable Path config;

  @Mixin private final TrainArguments arguments = new TrainArguments();

  @Override
  public Integer call() throws StartException, IOException, Exception {
    base.requireCpu("train");
    var commandLine = spec.commandLine();
    return new TrainRun(base, arguments, commandLine.getOut(), commandLine.getErr()).run();
  }
}
