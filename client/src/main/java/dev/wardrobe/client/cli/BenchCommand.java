package dev.wardrobe.client.cli;

import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;

/** {@code wardrobe bench}: what a server does under load. */
@Command(
    name = "bench",
    description = "Measures a server under load, or sees that its answers stay right.",
    footer = {
      "",
      "On this machine, without a server: bench (what a forward pass costs) and bench adapters."
    },
    subcommands = {BenchLoadCommand.class, BenchChurnCommand.class},
    mixinStandardHelpOptions = true)
final class BenchCommand implements Runnable {
  @Spec private CommandSpec spec;

  @Override
  public void run() {
    throw new ParameterException(spec.commandLine(), "a command is missing: load or churn");
  }
}
