package dev.wardrobe;

import picocli.CommandLine;
import picocli.CommandLine.Command;

/** The server's command line. */
@Command(
    name = "wardrobe",
    description = "One 4-bit base language model, many LoRA adapters.",
    mixinStandardHelpOptions = true,
    version = "wardrobe 0.1.0-SNAPSHOT")
public final class Main {

  private Main() {}

  /** Runs one command and ends the process with its exit code. */
  public static void main(String[] args) {
    VectorModule.resolve();
    System.exit(new CommandLine(new Main()).execute(args));
  }
}
