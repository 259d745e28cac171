package dev.wardrobe.engine;

import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.model.Model;
import dev.wardrobe.model.ModelLoader;
import java.net.URISyntaxException;
import java.nio.file.Path;
import java.util.Objects;
import java.util.Random;

/** The smallest golden base on a processor, for tests. */
public final class TestBase implements AutoCloseable {
  private final CpuBackend backend;
  private final Model model;

  public TestBase(int threads) throws Exception {
    this(new CpuBackend(threads));
  }

  public TestBase(CpuBackend backend) throws Exception {
    this.backend = backend;
    model = ModelLoader.load(resource("models/llama_mha-nf4-dq"), LoadOptions.DEFAULT, backend);
  }

  /** A file or folder of the golden data that the tests carry. */
  public static Path resource(String path) {
    try {
      return Path.of(
          Objects.requireNonNull(TestBase.class.getResource("/golden/" + path), path).toURI());
    } catch (URISyntaxException e) {
      throw new AssertionError(e);
    }
  }

  public CpuBackend backend() {
    return backend;
  }

  public Model model() {
    return model;
  }

  /** Starts an engine on this base. */
  public Engine engine(EngineOptions options) {
    return engine(options, backend);
  }

  /** Starts an engine on this base, through a backend that wraps this one's. */
  public Engine engine(EngineOptions options, Backend wrapped) {
    return new Engine(model, wrapped, options);
  }

  public int[] prompt(long seed, int length) {
    Random random = new Random(seed);
    int[] prompt = new int[length];
    for (int i = 0; i < length; i++) {
      prompt[i] = random.nextInt(model.config().vocabulary());
    }
    return prompt;
  }

  @Override
  public void close() {
    model.close();
    backend.close();
  }
}
