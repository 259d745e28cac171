package dev.wardrobe;

import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.adapter.AdapterStore;
import dev.wardrobe.adapter.StoreOptions;
import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.OutOfMemoryException;
import dev.wardrobe.engine.Budget;
import dev.wardrobe.engine.Engine;
import dev.wardrobe.engine.EngineOptions;
import dev.wardrobe.http.FrontOptions;
import dev.wardrobe.http.HttpFrontend;
import dev.wardrobe.model.GenerationDefaults;
import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.model.Model;
import dev.wardrobe.model.ModelConfig;
import dev.wardrobe.model.ModelException;
import dev.wardrobe.model.ModelLoader;
import dev.wardrobe.serve.Conversation;
import dev.wardrobe.serve.Prompts;
import dev.wardrobe.serve.Served;
import dev.wardrobe.telemetry.Telemetry;
import dev.wardrobe.text.TextException;
import io.grpc.BindableService;
import java.io.IOException;
import java.nio.file.FileSystemException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.FutureTask;
import java.util.function.UnaryOperator;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Everything between a model directory and a conversation, composed: backend, base, adapters,
 * engine. Closed in the opposite order.
 */
final class Stack implements AutoCloseable {
  private static final Logger log = LoggerFactory.getLogger(Stack.class);

  private final Deque<AutoCloseable> parts = new ArrayDeque<>();
  private final Backend backend;
  private final Model model;
  private final AdapterRegistry adapters;
  private final Engine engine;
  private final Conversation conversation;
  private final Prompts prompts;
  private final ExecutorService workers;
  private final Telemetry telemetry;

  /**
   * What requests can count on.
   *
   * @param tenantsApart whether nothing of a tenant's requests can be seen from others'
   * @param longest how long a request may take; null: as long as it takes
   */
  record Terms(boolean tenantsApart, @Nullable Duration longest) {
    static final Terms NONE = new Terms(false, null);
  }

  /** Without a store. */
  Stack(ModelArguments arguments, List<Path> roots, AdapterOptions adapterOptions)
      throws StartException {
    this(arguments, roots, null, adapterOptions, UnaryOperator.identity());
  }

  /** On no terms. */
  Stack(
      ModelArguments arguments,
      List<Path> roots,
      @Nullable Path store,
      AdapterOptions adapterOptions,
      UnaryOperator<Backend> around)
      throws StartException {
    this(arguments, roots, store, adapterOptions, around, Terms.NONE);
  }

  /**
   * Loads the base, starts the engine, then loads every named adapter.
   *
   * @param roots where requests may load further adapters from
   * @param store where published versions are kept, or null
   * @param around what the model, the adapters and the engine get in the backend's place: it, or
   *     something around it
   * @throws StartException if one of them is refused; nothing is left behind
   */
  Stack(
      ModelArguments arguments,
      List<Path> roots,
      @Nullable Path store,
      AdapterOptions adapterOptions,
      UnaryOperator<Backend> around,
      Terms terms)
      throws StartException {
    Path directory = arguments.model();
    Map<String, Path> named = arguments.adapters();
    LoadOptions load = arguments.load();
    EngineOptions asked = arguments.engine().withTenantsApart(terms.tenantsApart());
    int threads = arguments.threads();
    int maxLogprobs = arguments.maxLogprobs();
    boolean complete = false;
    // Beside the weights: it takes longer than to map them.
    FutureTask<Prompts> reading =
        new FutureTask<>(
            () ->
                Prompts.read(
                    directory,
                    ModelConfig.read(directory).vocabulary(),
                    new BackgroundThreads("wardrobe-grammar-slow-")));
    Thread.ofPlatform().daemon().name("wardrobe-prompts").start(reading);
    try {
      backend = keep(arguments.backend());
      sayHowItComputes();
      Backend computing = around.apply(backend);
      model = keep(ModelLoader.load(directory, load, computing, arguments.progress()));
      warnOfIgnored(model.defaults());
      EngineOptions engineOptions = asked.onDevice(backend.spareBytes());
      prompts = keep(await(reading));
      workers = keep(threads("wardrobe-worker-", Math.clamp(threads, 2, 8)));
      // Apart from the workers, which a long load must not keep from tokenizing.
      ExecutorService loaders =
          keep(Executors.newFixedThreadPool(2, new BackgroundThreads("wardrobe-loader-")));
      AdapterStore published =
          store == null ? null : keep(AdapterStore.open(store, StoreOptions.DEFAULT));
      adapters =
          keep(
              new AdapterRegistry(
                  model,
                  computing,
                  roots,
                  published,
                  adapterOptions
                      .withRefuseZeroDelta(arguments.refusesZeroDelta())
                      .withDeviceBytes(budget(engineOptions, model).mostAdapterBytes()),
                  loaders));
      engine = keep(new Engine(model, computing, engineOptions));
      adapters.prefetchBy(engine::prefetch);
      for (Map.Entry<String, Path> adapter : named.entrySet()) {
        adapters.loadTrusted(adapter.getKey(), adapter.getValue());
      }
      conversation =
          new Conversation(model, prompts, adapters, engine, workers, maxLogprobs, terms.longest());
      telemetry = keep(new Telemetry(model.name(), engine, adapters, () -> ModelInfo.of(this)));
      conversation.reportTo(telemetry);
      complete = true;
    } catch (ModelException
        | AdapterException
        | TextException
        | OutOfMemoryException
        | IOException e) {
      String message =
          e instanceof FileSystemException file ? StartException.explain(file) : e.getMessage();
      throw new StartException(message == null ? e.toString() : message, e);
    } finally {
      if (!complete) {
        try {
          closeUnused(reading);
        } finally {
          close();
        }
      }
    }
  }

  private static Budget budget(EngineOptions options, Model model) throws StartException {
    try {
      return options.budget(model.config());
    } catch (IllegalArgumentException e) {
      throw StartException.usage("--" + e.getMessage(), e);
    }
  }

  private static Prompts await(Future<Prompts> reading)
      throws ModelException, TextException, IOException {
    boolean interrupted = false;
    try {
      while (true) {
        try {
          return reading.get();
        } catch (InterruptedException e) {
          interrupted = true;
        } catch (ExecutionException e) {
          switch (e.getCause()) {
            case ModelException cause -> throw cause;
            case TextException cause -> throw cause;
            case IOException cause -> throw cause;
            case RuntimeException cause -> throw cause;
            case Error cause -> throw cause;
            case null, default -> throw new IllegalStateException(e);
          }
        }
      }
    } finally {
      if (interrupted) {
        Thread.currentThread().interrupt();
      }
    }
  }

  /** Closes what was read for a stack that is not to be; a second time does nothing. */
  private static void closeUnused(Future<Prompts> reading) {
    try {
      await(reading).close();
    } catch (ModelException | TextException | IOException | RuntimeException e) {
      log.debug("the prompts could not be read either", e);
    }
  }

  private void sayHowItComputes() {
    if (backend.refusal() == null) {
      log.info("math: {}; {}", backend.math().id(), backend.describe());
    } else {
      log.warn("--math fast is not to be had, so math is exact: {}", backend.refusal());
    }
  }

  private static void warnOfIgnored(GenerationDefaults defaults) {
    if (!defaults.ignored().isEmpty()) {
      log.warn(
          "generation_config.json asks for what is not supported, and is left out: {}",
          String.join(", ", defaults.ignored()));
    }
  }

  private static ExecutorService threads(String name, int count) {
    return Executors.newFixedThreadPool(
        count, Thread.ofPlatform().daemon().name(name, 0).factory());
  }

  private <T extends AutoCloseable> T keep(T part) {
    parts.push(part);
    return part;
  }

  Backend backend() {
    return backend;
  }

  Model model() {
    return model;
  }

  AdapterRegistry adapters() {
    return adapters;
  }

  Engine engine() {
    return engine;
  }

  Conversation conversation() {
    return conversation;
  }

  Prompts prompts() {
    return prompts;
  }

  Telemetry telemetry() {
    return telemetry;
  }

  /** What takes time and is not generation runs here. */
  ExecutorService workers() {
    return workers;
  }

  /** The services over it, on no port yet; not closed with it. */
  HttpFrontend frontend(List<BindableService> extensions) {
    return frontend(extensions, FrontOptions.DEFAULT);
  }

  /** The services over it, on no port yet; not closed with it. */
  HttpFrontend frontend(List<BindableService> extensions, FrontOptions options) {
    return new HttpFrontend(
        new Served(
            model, conversation, adapters, engine, workers, () -> ModelInfo.of(this), telemetry),
        extensions,
        options);
  }

  @Override
  public void close() {
    while (!parts.isEmpty()) {
      try {
        parts.pop().close();
      } catch (Exception e) {
        throw new IllegalStateException("closing failed", e);
      }
    }
  }
}
