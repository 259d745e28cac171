package dev.wardrobe.trainer;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.google.errorprone.annotations.FormatMethod;
import dev.wardrobe.BaseArguments;
import dev.wardrobe.ExitCode;
import dev.wardrobe.StartException;
import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.adapter.AdapterStore;
import dev.wardrobe.adapter.StoreImport;
import dev.wardrobe.adapter.StoreOptions;
import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.model.LoadOptions;
import dev.wardrobe.model.Model;
import dev.wardrobe.model.ModelException;
import dev.wardrobe.model.ModelLoader;
import dev.wardrobe.text.TextException;
import dev.wardrobe.trainer.backward.Parameter;
import dev.wardrobe.trainer.backward.TrainableAdapter;
import dev.wardrobe.trainer.backward.TrainableModel;
import dev.wardrobe.trainer.checkpoint.CheckpointException;
import dev.wardrobe.trainer.checkpoint.Checkpoints;
import dev.wardrobe.trainer.checkpoint.Checkpoints.Checkpoint;
import dev.wardrobe.trainer.checkpoint.Disk;
import dev.wardrobe.trainer.checkpoint.PeftDirectory;
import dev.wardrobe.trainer.checkpoint.RunIdentity;
import dev.wardrobe.trainer.checkpoint.RunState;
import dev.wardrobe.trainer.data.BatchOptions;
import dev.wardrobe.trainer.data.Batches;
import dev.wardrobe.trainer.data.DataException;
import dev.wardrobe.trainer.data.DataOptions;
import dev.wardrobe.trainer.data.Dataset;
import dev.wardrobe.trainer.data.Format;
import dev.wardrobe.trainer.data.ModelText;
import dev.wardrobe.trainer.data.Rows;
import dev.wardrobe.trainer.data.Summary;
import dev.wardrobe.trainer.loop.LoopOptions;
import dev.wardrobe.trainer.loop.Sampler;
import dev.wardrobe.trainer.loop.Training;
import dev.wardrobe.trainer.loop.TrainingException;
import dev.wardrobe.trainer.optim.Optimizer;
import dev.wardrobe.trainer.optim.OptimizerOptions;
import dev.wardrobe.trainer.optim.PagerOptions;
import dev.wardrobe.trainer.plan.Device;
import dev.wardrobe.trainer.plan.MemoryPlan;
import dev.wardrobe.trainer.report.Answer;
import dev.wardrobe.trainer.report.EventFile;
import dev.wardrobe.trainer.report.ModelCard;
import dev.wardrobe.trainer.report.Page;
import dev.wardrobe.trainer.report.ProcessMemory;
import dev.wardrobe.trainer.report.Progress;
import dev.wardrobe.trainer.report.StepLines;
import dev.wardrobe.trainer.report.StepMetrics;
import java.io.Console;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.channels.FileChannel;
import java.nio.channels.OverlappingFileLockException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Clock;
import java.time.Duration;
import java.time.Instant;
import java.time.InstantSource;
import java.time.ZoneId;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import org.jspecify.annotations.Nullable;

/** One {@code wardrobe train}, from its options to an adapter. */
final class TrainRun {
  /** What says of an output folder when its run began. */
  private static final String RUN = "run.json";

  private static final String LOCK = ".lock";

  private static final ObjectMapper MAPPER = new ObjectMapper();

  private final BaseArguments base;
  private final TrainArguments arguments;
  private final Settings settings;
  private final PrintWriter results;
  private final PrintWriter out;
  private final Deque<AutoCloseable> parts = new ArrayDeque<>();
  private final CountDownLatch over = new CountDownLatch(1);
  private volatile boolean interrupted;

  /** What the process ends with if a signal ends it. */
  private volatile int exit = 1;

  /**
   * @param out standard output
   * @param err standard error
   */
  TrainRun(BaseArguments base, TrainArguments arguments, PrintWriter out, PrintWriter err) {
    this.base = base;
    this.arguments = arguments;
    this.settings = new Settings(arguments);
    this.results = out;
    this.out = arguments.output.json ? err : out;
  }

  /** What is learned from, and evaluated on. */
  private record Learned(
      Dataset data, Rows rows, @Nullable Rows evaluation, @Nullable String evaluated) {
    boolean isChat() {
      return data.summary().formats().values().stream()
          .anyMatch(Set.of(Format.MESSAGES, Format.SHAREGPT, Format.ALPACA)::contains);
    }
  }

  /**
   * Runs.
   *
   * @return the exit code
   * @throws StartException if it cannot begin, or cannot go on
   */
  int run() throws StartException, IOException, ModelException, AdapterException {
    Path folder = arguments.output.folder;
    if (arguments.data.files.isEmpty() || folder == null) {
      throw StartException.usage(
          (folder == null ? "--out" : "--data") + " is missing, and a run needs it");
    }
    Thread caller = Thread.currentThread();
    Thread shutdown = new Thread(() -> interrupt(caller), "wardrobe-shutdown");
    Runtime.getRuntime().addShutdownHook(shutdown);
    try {
      exit = run(folder);
      return exit;
    } catch (DataException | TextException e) {
      throw new StartException(String.valueOf(e.getMessage()), e);
    } catch (dev.wardrobe.compute.OutOfMemoryException | OutOfMemoryError e) {
      throw new StartException(
          "out of memory (%s); lower --batch-size or --seq-len, or allow Java more, as by"
                  .formatted(e.getMessage())
              + " WARDROBE_JAVA_OPTS=-Xmx8g. What was saved is kept: --resume goes on from it",
          e);
    } finally {
      try {
        close();
      } finally {
        over.countDown();
        if (!interrupted) {
          forget(shutdown);
        }
      }
    }
  }

  private static void forget(Thread shutdown) {
    try {
      Runtime.getRuntime().removeShutdownHook(shutdown);
    } catch (IllegalStateException e) {
      // A signal came in the meantime, and finds that all is over.
    }
  }

  /** On SIGINT and SIGTERM: has the run end at a checkpoint, and waits for it. */
  private void interrupt(Thread caller) {
    interrupted = true;
    boolean running = over.getCount() > 0;
    try {
      over.await();
      if (running && exit == 1) {
        // What it failed of is said by the caller, which cannot end while the process does.
        caller.join(Duration.ofSeconds(1));
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
    if (running) {
      Runtime.getRuntime().halt(exit);
    }
  }

  private <T extends AutoCloseable> T keep(T part) {
    parts.push(part);
    return part;
  }

  private void close() throws IOException {
    IOException failure = null;
    while (!parts.isEmpty()) {
      try {
        parts.pop().close();
      } catch (IOException e) {
        failure = e;
      } catch (Exception e) {
        throw new IllegalStateException("closing failed", e);
      }
    }
    if (failure != null) {
      throw failure;
    }
  }

  @FormatMethod
  private void say(String format, Object... values) {
    out.println(String.format(Locale.ROOT, format, values));
    out.flush();
  }

  private int run(Path folder)
      throws StartException,
          DataException,
          TextException,
          IOException,
          ModelException,
          AdapterException {
    settings.check();
    checkPublication();
    boolean resumes = open(folder);
    Checkpoints checkpoints = new Checkpoints(folder, Math.max(1, arguments.output.keep));
    checkpoints.tidy();
    Checkpoint checkpoint = resumes ? checkpoints.latest() : null;
    Clock clock = began(folder, resumes);

    CpuBackend backend = keep(new CpuBackend(base.threads(), base.math()));
    if (backend.refusal() != null) {
      say("--math fast is not to be had, so math is exact: %s", backend.refusal());
    }
    Path directory = base.model();
    LoadOptions load = LoadOptions.DEFAULT.withCache(base.cache());
    Model model = keep(ModelLoader.load(directory, load, backend));
    Learned learned = read(model, clock, folder);
    say("%s", learned.data().summary().text().strip());

    BatchOptions batching = settings.batches(model.config().contextLength());
    Batches batches = new Batches(learned.rows(), batching, arguments.steps.seed);
    Batches evaluation =
        learned.evaluation() == null
            ? null
            : Batches.evaluation(learned.evaluation(), settings.evaluationBatch());
    LoopOptions loop = settings.loop(settings.total(batches.totalSteps(settings.epochs())));
    OptimizerOptions optimizing = settings.optimizer();
    Map<String, String> options =
        settings.decisive(backend.math(), batching, optimizing, loop, learned.evaluated());
    String fingerprint = model.fingerprint();
    RunIdentity identity =
        new RunIdentity(
            fingerprint.isEmpty() ? model.name() : fingerprint,
            learned.data().fingerprint(),
            options);
    if (checkpoint != null) {
      check(checkpoint, identity);
    }

    TrainableAdapter adapter = keep(adapter(checkpoint, model, backend));
    TrainableModel trainable =
        keep(new TrainableModel(model, backend, adapter, settings.keepLayers()));
    // All at once: room that grows with the rows leaves behind what it was before.
    int evaluated = evaluation == null ? 0 : evaluation.mostTokens();
    trainable.reserve(Math.max(batches.mostTokens(), evaluated));
    long stateBytes =
        adapter.parameters().stream().map(Parameter::size).mapToLong(optimizing::stateBytes).sum();
    PagerOptions paging = settings.paging(optimizing, stateBytes, folder);
    Optimizer optimizer = keep(new Optimizer(adapter.parameters(), optimizing, backend, paging));
    RunState state = RunState.START;
    if (checkpoint != null) {
      optimizer.load(checkpoint.folder().resolve(Training.OPTIMIZER));
      state = checkpoint.state();
      say("Going on after step %,d of %,d.", state.step(), loop.steps());
    }
    say(
        "Training %,d parameters over %s: %,d steps of %d x %d rows, on %s.",
        adapter.size(),
        model.name(),
        loop.steps(),
        batching.accumulation(),
        batching.batchSize(),
        backend.describe());

    if (arguments.adapter.from == null) {
      int longest =
          batching.packing() > 0 ? batching.packing() : learned.data().summary().longest();
      sayMemory(
          MemoryPlan.of(
              model.config(),
              settings.plan(load, settings.lora(), longest, optimizing, paging, backend.math()),
              Device.machine()));
    }

    ObjectNode config = PeftDirectory.config(adapter.config(), model.name());
    long began = System.nanoTime();
    int from = checkpoint == null ? -1 : state.step();
    StepLines<StepMetrics> metrics =
        keep(StepLines.after(from, folder.resolve(StepMetrics.FILE), StepMetrics::of));
    StepLines<Answer> answers =
        keep(StepLines.after(from, folder.resolve(Answer.FILE), Answer::of));
    EventFile events = keep(EventFile.create(folder, from + 1, System.currentTimeMillis()));
    Training training =
        new Training(
            new Training.Parts(
                backend,
                trainable,
                adapter.parameters(),
                optimizer,
                batches,
                evaluation,
                sampler(model, backend, learned.isChat()),
                config,
                fingerprint),
            loop,
            new Training.Output(folder, identity, checkpoints, metrics, answers, events),
            state,
            progress(loop.steps(), state.step(), began),
            () -> interrupted,
            InstantSource.system());
    state = written(folder, training::run);
    if (state.step() < loop.steps() && !state.stopped()) {
      say(
          "Interrupted after step %,d of %,d, which is saved; the same command with --resume goes"
              + " on from there.",
          state.step(), loop.steps());
      return ExitCode.INTERRUPTED;
    }
    finish(
        folder,
        checkpoints,
        state,
        learned,
        model,
        adapter.size(),
        metrics,
        answers,
        options,
        began);
    return 0;
  }

  /** Where memory will go, in a line; wardrobe plan has it in full. */
  private void sayMemory(MemoryPlan plan) {
    StringBuilder terms = new StringBuilder();
    for (MemoryPlan.Term term : plan.terms()) {
      if (term.bytes() > 0) {
        terms.append(terms.isEmpty() ? "" : "; ").append(term.name()).append(' ');
        terms.append(Progress.gib(term.bytes()));
      }
    }
    say(
        "Memory: about %s of %s: %s.",
        Progress.gib(plan.total()), Progress.gib(plan.device().bytes()), terms);
    if (!plan.fits()) {
      say("That is more than there is: lower --batch-size or --seq-len; see wardrobe plan.");
    }
  }

  /** Something that writes to the output folder. */
  private interface Writing<T> {
    T run() throws IOException;
  }

  /** Writes; what the disk refuses is said with the way on. */
  private static <T> T written(Path folder, Writing<T> writing) throws StartException, IOException {
    try {
      return writing.run();
    } catch (TrainingException | CheckpointException e) {
      throw e;
    } catch (IOException e) {
      String what =
          e instanceof FileSystemException file ? StartException.explain(file) : e.getMessage();
      throw new StartException(
          "the run ended, since %s could not be written: %s; once it can be, the same command with"
                  .formatted(folder, what)
              + " --resume goes on from the latest checkpoint",
          e);
    }
  }

  private void checkPublication() throws StartException {
    TrainArguments.OutputArguments output = arguments.output;
    boolean somewhere = output.store != null || output.server != null;
    if ((output.publish != null) != somewhere) {
      throw StartException.usage(
          "--publish: expected with --store or --server, and they with it, got one without the"
              + " other");
    }
    if (output.store != null && output.server != null) {
      throw StartException.usage("--store and --server: expected one of them, got both; drop one");
    }
    if (output.which != null && !List.of("best", "last").contains(output.which)) {
      throw StartException.usage(
          "--output: expected best or last, got '%s'".formatted(output.which));
    }
    boolean evaluates = !arguments.watch.files.isEmpty() || arguments.watch.split != null;
    if (!evaluates && ("best".equals(output.which) || arguments.watch.patience > 0)) {
      throw StartException.usage(
          "--output best and --patience: expected something to evaluate on, got none; give"
              + " --eval-data or --eval-split");
    }
    if (output.keep < 1) {
      throw StartException.usage("--keep: expected at least 1, got " + output.keep);
    }
    if (arguments.watch.loggingSteps < 1) {
      throw StartException.usage(
          "--logging-steps: expected at least 1, got " + arguments.watch.loggingSteps);
    }
    if (arguments.watch.sampleTokens < 1) {
      throw StartException.usage(
          "--sample-tokens: expected at least 1, got " + arguments.watch.sampleTokens);
    }
  }

  /** Makes the output folder this run's; true if it holds one to go on with. */
  private boolean open(Path folder) throws StartException, IOException {
    if (Files.exists(folder) && !Files.isDirectory(folder)) {
      throw new StartException(
          "--out: expected a new or empty folder, got the file %s; name another".formatted(folder));
    }
    boolean used = Checkpoints.used(folder, Set.of(RUN, LOCK));
    if (used && !arguments.output.resume) {
      throw new StartException(
          "--out: expected a new or empty folder, got %s; name another, or go on with the run that"
                  .formatted(folder)
              + " is there by --resume");
    }
    if (used && !Files.exists(folder.resolve(RUN))) {
      throw new StartException(
          "--resume: expected a folder that wardrobe train has written, with %s, got %s"
              .formatted(RUN, folder));
    }
    Files.createDirectories(folder);
    FileChannel lock =
        keep(
            FileChannel.open(
                folder.resolve(LOCK), StandardOpenOption.CREATE, StandardOpenOption.WRITE));
    try {
      if (lock.tryLock() == null) {
        throw new OverlappingFileLockException();
      }
    } catch (OverlappingFileLockException e) {
      throw new StartException(
          "--out: another run is writing to %s; wait for it, or name another".formatted(folder), e);
    }
    return used;
  }

  /**
   * The time that templates see: that of the run's first beginning, so that the same rows have the
   * same tokens tomorrow.
   */
  private static Clock began(Path folder, boolean resumes) throws IOException {
    Path file = folder.resolve(RUN);
    long began = System.currentTimeMillis();
    if (resumes) {
      try {
        JsonNode json = MAPPER.readTree(Files.readAllBytes(file));
        if (!json.path("began").isIntegralNumber()) {
          throw new CheckpointException(file + ": expected a run's beginning, got something else");
        }
        began = json.path("began").longValue();
      } catch (JsonProcessingException e) {
        throw new CheckpointException(file + ": expected JSON, got: " + e.getOriginalMessage(), e);
      }
    } else {
      ObjectNode json = JsonNodeFactory.instance.objectNode();
      json.put("began", began);
      Disk.text(file, json + "\n");
    }
    return Clock.fixed(Instant.ofEpochMilli(began), ZoneId.systemDefault());
  }

  private Learned read(Model model, Clock clock, Path folder)
      throws StartException, TextException, DataException {
    DataOptions reading =
        settings.data(model.config().contextLength(), clock, base.threads(), folder);
    String split = arguments.watch.split;
    if (split != null && !arguments.watch.files.isEmpty()) {
      throw StartException.usage(
          "--eval-data and --eval-split: expected one of them, got both; drop one");
    }
    Dataset data;
    // The rows are tokens by then: while training, a tokenizer would only take memory.
    try (ModelText text =
        ModelText.read(model.directory(), model.config().vocabulary(), model.defaults().eos())) {
      data = keep(Dataset.read(arguments.data.files, text, reading));
      if (!arguments.watch.files.isEmpty()) {
        Dataset evaluation = keep(Dataset.read(arguments.watch.files, text, reading));
        return new Learned(data, data.rows(), evaluation.rows(), evaluation.fingerprint());
      }
    }
    if (split == null) {
      return new Learned(data, data.rows(), null, null);
    }
    long seed = arguments.steps.seed;
    Dataset.Split parted;
    if (split.matches("\\d{1,9}")) {
      parted = data.split(seed, Integer.parseInt(split));
    } else if (split.matches("\\d{1,2}(\\.\\d{1,6})?%")) {
      parted = data.split(seed, Double.parseDouble(split.substring(0, split.length() - 1)) / 100);
    } else {
      throw StartException.usage(
          "--eval-split: expected a number of rows, or a share such as 5%%, got '%s'"
              .formatted(split));
    }
    return new Learned(
        data,
        parted.training(),
        parted.validation(),
        parted.validation() == null ? null : data.fingerprint());
  }

  private static void check(Checkpoint checkpoint, RunIdentity identity) throws StartException {
    List<String> differences = checkpoint.identity().differences(identity);
    if (!differences.isEmpty()) {
      throw new StartException(
          "--resume: expected what the run in the folder began with, got another: %s; give what it"
                  .formatted(String.join("; ", differences))
              + " had, or begin anew in another folder");
    }
  }

  private TrainableAdapter adapter(@Nullable Checkpoint checkpoint, Model model, CpuBackend backend)
      throws StartException, AdapterException, IOException {
    if (checkpoint != null) {
      return TrainableAdapter.read(checkpoint.folder(), model, backend);
    }
    Path from = arguments.adapter.from;
    return from == null
        ? TrainableAdapter.create(settings.lora(), arguments.steps.seed, model, backend)
        : TrainableAdapter.read(from, model, backend);
  }

  private @Nullable Sampler sampler(Model model, CpuBackend backend, boolean chat)
      throws TextException {
    List<String> prompts = arguments.watch.prompts;
    return prompts.isEmpty()
        ? null
        : keep(new ServedSamples(model, backend, prompts, chat, arguments.watch.sampleTokens));
  }

  // Since JDK 22 a console exists without a terminal too, by default; but not under every provider.
  @SuppressWarnings("SystemConsoleNull")
  private Progress progress(int steps, int from, long began) {
    @Nullable Console console = System.console();
    boolean live =
        console != null
            && console.isTerminal()
            && !arguments.output.json
            && !Objects.equals(System.getenv("TERM"), "dumb");
    String plain = System.getenv("NO_COLOR");
    boolean coloured = plain == null || plain.isEmpty();
    return new Progress(out, live, coloured, arguments.watch.loggingSteps, steps, from, began);
  }

  /** Writes what a run leaves: the report and the card, then the adapter. */
  private void finish(
      Path folder,
      Checkpoints checkpoints,
      RunState state,
      Learned learned,
      Model model,
      long trained,
      StepLines<StepMetrics> metrics,
      StepLines<Answer> answers,
      Map<String, String> options,
      long began)
      throws StartException, IOException, AdapterException {
    boolean best = state.best() >= 0 && !"last".equals(arguments.output.which);
    Path chosen =
        best
            ? checkpoints.best(state.best())
            : Objects.requireNonNull(checkpoints.latest()).folder();
    double loss = lastLoss(metrics.lines());
    long seconds = (System.nanoTime() - began) / 1_000_000_000;
    Map<String, String> facts = new LinkedHashMap<>();
    facts.put("Steps", String.format(Locale.ROOT, "%,d", state.step()));
    facts.put("Parameters trained", String.format(Locale.ROOT, "%,d", trained));
    facts.put("Loss", String.format(Locale.ROOT, "%.4f", loss));
    if (state.best() >= 0) {
      facts.put("Best evaluation", String.format(Locale.ROOT, "%.4f", state.bestLoss()));
      facts.put(
          "Best perplexity", String.format(Locale.ROOT, "%.3f", StrictMath.exp(state.bestLoss())));
      facts.put("Best step", String.format(Locale.ROOT, "%,d", state.best()));
    }
    facts.put(
        "Adapter of step", String.format(Locale.ROOT, "%,d", best ? state.best() : state.step()));
    facts.put("Tokens", String.format(Locale.ROOT, "%,d", state.tokens()));
    if (state.skipped() > 0) {
      facts.put("Skipped steps", String.format(Locale.ROOT, "%,d", state.skipped()));
    }
    facts.put("Time of this run", Progress.clock(seconds));
    long peak = ProcessMemory.now().peak();
    if (peak > 0) {
      facts.put("Peak memory", Progress.gib(peak));
    }
    Page page =
        new Page(
            "%s on %s".formatted(folder.toAbsolutePath().normalize().getFileName(), model.name()),
            facts,
            metrics.lines(),
            answers.lines(),
            data(learned),
            options);
    String card = ModelCard.of(page, model.name(), model.fingerprint());
    written(
        folder,
        () -> {
          Disk.text(folder.resolve(Page.FILE), page.html());
          Disk.text(folder.resolve(ModelCard.FILE), card);
          PeftDirectory.copy(chosen, folder);
          return chosen;
        });
    say(
        "Done after %s: %,d steps, loss %.4f%s. The adapter is in %s, beside %s.",
        Progress.clock(seconds),
        state.step(),
        loss,
        state.best() < 0
            ? ""
            : String.format(
                Locale.ROOT, ", best evaluation %.4f at step %,d", state.bestLoss(), state.best()),
        folder,
        Page.FILE);
    String published = publish(folder, model);
    if (arguments.output.json) {
      ObjectNode json = JsonNodeFactory.instance.objectNode();
      json.put("out", folder.toString());
      json.put("steps", state.step());
      json.put("loss", loss);
      if (state.best() >= 0) {
        json.put("best_eval_loss", state.bestLoss());
        json.put("best_step", state.best());
      }
      json.put("adapter_step", best ? state.best() : state.step());
      json.put("tokens", state.tokens());
      json.put("skipped", state.skipped());
      json.put("seconds", seconds);
      json.put("peak_memory", peak);
      json.put("published", published);
      results.println(json);
      results.flush();
    }
  }

  /** Of the last step that was not skipped. */
  private static double lastLoss(List<StepMetrics> lines) {
    for (StepMetrics line : lines.reversed()) {
      if (Double.isFinite(line.loss())) {
        return line.loss();
      }
    }
    return Double.NaN;
  }

  private static Map<String, String> data(Learned learned) {
    Summary summary = learned.data().summary();
    Map<String, String> rows = new LinkedHashMap<>();
    StringBuilder files = new StringBuilder();
    summary
        .formats()
        .forEach(
            (file, format) ->
                files
                    .append(files.isEmpty() ? "" : "\n")
                    .append(file.getFileName())
                    .append(" (")
                    .append(format.option())
                    .append(')'));
    rows.put("Files", files.toString());
    rows.put("SHA-256 of the files", summary.digest());
    rows.put("Digest of tokens and masks", learned.data().fingerprint());
    rows.put("Rows", String.format(Locale.ROOT, "%,d of %,d", summary.rows(), summary.read()));
    rows.put("Tokens", String.format(Locale.ROOT, "%,d", summary.tokens()));
    rows.put("Tokens learned", String.format(Locale.ROOT, "%,d", summary.targets()));
    rows.put("Rows cut off", String.format(Locale.ROOT, "%,d", summary.truncated()));
    summary.dropped().forEach((why, count) -> rows.put("Left out: " + why, count.toString()));
    summary.bad().forEach((why, count) -> rows.put("Bad: " + why, count.toString()));
    if (learned.evaluation() != null) {
      rows.put("Rows evaluated on", String.format(Locale.ROOT, "%,d", learned.evaluation().size()));
    }
    rows.put("An example", summary.exampleText());
    return rows;
  }

  /** Publishes the adapter; as what, or null if that was not asked for. */
  private @Nullable String publish(Path folder, Model model)
      throws StartException, AdapterException, IOException {
    String name = arguments.output.publish;
    Path directory = arguments.output.store;
    String server = arguments.output.server;
    if (name != null && server != null) {
      String published = Publishing.publish(server, name, folder);
      say("Published as %s by %s.", published, server);
      return published;
    }
    if (name == null || directory == null) {
      return null;
    }
    StoreImport.Outcome[] outcome = new StoreImport.Outcome[1];
    try (AdapterStore store = AdapterStore.open(directory, StoreOptions.DEFAULT)) {
      new StoreImport(store, AdapterOptions.DEFAULT, model)
          .directories(
              List.of(new StoreImport.Source(name, null, List.of(), folder)),
              each -> outcome[0] = each);
    }
    if (outcome[0].content() == null) {
      throw new StartException(
          "--publish: the adapter in %s was refused: %s"
              .formatted(folder, String.join("; ", outcome[0].notes())));
    }
    say("Published as %s in %s.", outcome[0].name(), directory);
    return outcome[0].name();
  }
}
