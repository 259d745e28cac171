package dev.wardrobe.client.cli;

import picocli.CommandLine;
import picocli.CommandLine.Command;

/** The client's command line. */
@Command(
    name = "wardrobe",
    description = "One 4-bit base language model, many LoRA adapters.",
    mixinStandardHelpOptions = true,
    version = "wardrobe 0.1.0-SNAPSHOT")
public final class Cli {

  private Cli() {}

  /** Runs one command and ends the process with its exit code. */
  public static void main(String[] args) {
    System.exit(new CommandLine(new Cli()).execute(args));
  }
}
