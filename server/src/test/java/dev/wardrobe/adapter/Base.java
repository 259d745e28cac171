package dev.wardrobe.adapter;

import dev.wardrobe.compute.MathMode;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.model.Model;
import dev.wardrobe.model.ModelLoader;
import java.nio.file.Path;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.jspecify.annotations.Nullable;

/** A tiny base on a backend of its own. */
final class Base implements AutoCloseable {
  final CpuBackend backend;
  final Model model;

  Base(Path directory) throws Exception {
    this(directory, LoadOptions.AS_STORED);
  }

  Base(Path directory, LoadOptions options) throws Exception {
    this(directory, options, MathMode.EXACT);
  }

  Base(Path directory, LoadOptions options, MathMode math) throws Exception {
    backend = new CpuBackend(2, math);
    Model loaded = null;
    try {
      loaded = ModelLoader.load(directory, options, backend);
    } finally {
      if (loaded == null) {
        backend.close();
      }
    }
    model = loaded;
  }

  /** Opens a model of the tests' resources. */
  static Base of(String name) throws Exception {
    return new Base(Adapters.resource("golden/models/" + name));
  }

  /** Reads an adapter, and makes it resident for a moment. */
  Summary read(Path directory, AdapterOptions options) throws AdapterException {
    try (Adapter adapter = Adapter.read(directory, model, options);
        var lora = backend.lora(adapter.deltas(), model::matrix)) {
      if (backend.loraBytes(adapter.deltas()) != lora.bytes()) {
        throw new AssertionError(
            "told %d bytes, took %d".formatted(backend.loraBytes(adapter.deltas()), lora.bytes()));
      }
      return new Summary(adapter, lora.bytes());
    }
  }

  /** What was read, after it is closed. */
  record Summary(Adapter adapter, long bytes) {}

  @Override
  public void close() {
    model.close();
    backend.close();
  }

  static @Nullable AdapterException refusal(ThrowingCallable call) {
    try {
      call.call();
      return null;
    } catch (AdapterException e) {
      return e;
    } catch (Throwable e) {
      throw new AssertionError(e);
    }
  }
}
