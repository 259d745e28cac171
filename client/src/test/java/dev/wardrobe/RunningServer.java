package dev.wardrobe;

import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.http.HttpFrontend;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.function.UnaryOperator;
import picocli.CommandLine;

/** A server of the embedded model in this process, for clients' tests. */
public final class RunningServer implements AutoCloseable {
  private static final Path DEMO =
      Path.of(System.getProperty("wardrobe.root"), "deploy", "models", "demo");

  private final Stack stack;
  private final HttpFrontend frontend;
  private final String target;

  /**
   * Starts one.
   *
   * @param arguments of {@code serve} that tell of the model and its adapters, but {@code --model}
   */
  public RunningServer(Path root, Path store, String... arguments) throws Exception {
    ModelArguments model = new ModelArguments(0);
    List<String> words = new ArrayList<>(List.of("--model", DEMO.resolve("base").toString()));
    words.addAll(List.of(arguments));
    new CommandLine(model).parseArgs(words.toArray(String[]::new));
    this.stack =
        new Stack(model, List.of(root), store, AdapterOptions.DEFAULT, UnaryOperator.identity());
    this.frontend = stack.frontend(List.of());
    this.target = "127.0.0.1:" + frontend.listen("127.0.0.1", 0);
  }

  /** A PEFT directory that comes with the model. */
  public static Path adapter(String name) {
    return DEMO.resolve("adapters").resolve(name);
  }

  /** Where it listens. */
  public String target() {
    return target;
  }

  @Override
  public void close() throws IOException {
    frontend.close();
    stack.close();
  }
}
