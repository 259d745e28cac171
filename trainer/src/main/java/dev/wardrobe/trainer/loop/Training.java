package dev.wardrobe.trainer.loop;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.compute.Backend;
import dev.wardrobe.trainer.backward.Parameter;
import dev.wardrobe.trainer.backward.TrainableModel;
import dev.wardrobe.trainer.checkpoint.Checkpoints;
import dev.wardrobe.trainer.checkpoint.Disk;
import dev.wardrobe.trainer.checkpoint.PeftDirectory;
import dev.wardrobe.trainer.checkpoint.RunIdentity;
import dev.wardrobe.trainer.checkpoint.RunState;
import dev.wardrobe.trainer.data.Batches;
import dev.wardrobe.trainer.data.MicroBatch;
import dev.wardrobe.trainer.optim.Optimizer;
import dev.wardrobe.trainer.report.Answer;
import dev.wardrobe.trainer.report.EventFile;
import dev.wardrobe.trainer.report.ProcessMemory;
import dev.wardrobe.trainer.report.Progress;
import dev.wardrobe.trainer.report.StepLines;
import dev.wardrobe.trainer.report.StepMetrics;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.InstantSource;
import java.util.List;
import java.util.Locale;
import java.util.OptionalDouble;
import java.util.function.BooleanSupplier;
import org.jspecify.annotations.Nullable;

/**
 * A run over its steps.
 *
 * <p>A step: gradients to 0; those of its micro-batches' mean cross-entropy over all their targets;
 * their norm; if that or the loss is not finite, nothing else; clipped; the optimizer's step at the
 * schedule's rate. What a step does follows from the options and its number, so that a run goes on
 * from a checkpoint as if it had never ended, to the bit.
 *
 * <p>For the thread that owns the backend.
 */
public final class Training {
  /** The file of the optimizer's state in a checkpoint. */
  public static final String OPTIMIZER = "optimizer.state";

  private final Parts parts;
  private final LoopOptions options;
  private final Output output;
  private final Progress progress;
  private final BooleanSupplier interrupted;
  private final InstantSource clock;
  private RunState state;

  /**
   * What a run works with; all of it stays its owner's.
   *
   * @param sampler null for no samples
   * @param evaluation rows that are not learned from, a micro-batch a step; null for none
   * @param config the adapter's whole configuration
   */
  public record Parts(
      Backend backend,
      TrainableModel model,
      List<Parameter> parameters,
      Optimizer optimizer,
      Batches batches,
      @Nullable Batches evaluation,
      @Nullable Sampler sampler,
      ObjectNode config,
      String fingerprint) {}

  /** Where a run writes to. */
  public record Output(
      Path folder,
      RunIdentity identity,
      Checkpoints checkpoints,
      StepLines<StepMetrics> metrics,
      StepLines<Answer> answers,
      EventFile events) {}

  /**
   * @param state after which step to go on
   * @param interrupted asked between micro-batches: whether to write a checkpoint and return
   */
  public Training(
      Parts parts,
      LoopOptions options,
      Output output,
      RunState state,
      Progress progress,
      BooleanSupplier interrupted,
      InstantSource clock) {
    this.parts = parts;
    this.options = options;
    this.output = output;
    this.state = state;
    this.progress = progress;
    this.interrupted = interrupted;
    this.clock = clock;
  }

  /** What a step's gradients are of. */
  private record Gradient(double loss, long tokens) {}

  /**
   * Runs until the last step, until evaluations get no better, or until interrupted. In each case
   * there is a checkpoint of the state that is returned.
   *
   * @throws TrainingException if too many steps in a row had to be skipped
   * @throws IOException if something cannot be written; checkpoints before it are whole
   */
  public RunState run() throws IOException {
    if (state.step() == 0 && output.metrics().lines().isEmpty()) {
      begin();
    }
    boolean stop = interrupted.getAsBoolean();
    while (!stop && state.step() < options.steps() && !state.stopped()) {
      stop = !step() || interrupted.getAsBoolean();
    }
    save();
    progress.clear();
    return state;
  }

  /** Measures what there is before anything is learned. */
  private void begin() throws IOException {
    StepMetrics before =
        new StepMetrics(
            0,
            clock.millis(),
            0,
            Double.NaN,
            0,
            Double.NaN,
            0,
            0,
            ProcessMemory.now().resident(),
            null,
            OptionalDouble.empty());
    if (parts.evaluation() != null) {
      double loss = evaluate(parts.evaluation());
      if (interrupted.getAsBoolean()) {
        return;
      }
      before = before.withEvaluation(loss);
      progress.say(evaluated(0, loss, ""));
    }
    sample(0);
    record(before);
  }

  /** Makes a step; false if it was interrupted, and then nothing has changed. */
  private boolean step() throws IOException {
    int step = state.step() + 1;
    long began = System.nanoTime();
    double rate = options.schedule().rate(state.step());
    Gradient gradient = gradient();
    if (gradient == null) {
      return false;
    }
    double norm =
        options.maxNorm() > 0
            ? parts.optimizer().clip(options.maxNorm())
            : parts.optimizer().gradientNorm();
    String skipped = null;
    if (!Double.isFinite(gradient.loss())) {
      skipped = "the loss is " + gradient.loss();
    } else if (!Double.isFinite(norm)) {
      skipped = "the gradient's norm is " + norm;
    }
    if (skipped == null) {
      parts.optimizer().step(rate);
      state = state.stepped(gradient.tokens());
    } else {
      state = state.skipped(gradient.tokens());
    }
    long ended = System.nanoTime();
    StepMetrics metrics =
        new StepMetrics(
            step,
            clock.millis(),
            parts.batches().epoch(step),
            gradient.loss(),
            rate,
            norm,
            state.tokens(),
            gradient.tokens() * 1e9 / Math.max(1, ended - began),
            ProcessMemory.now().resident(),
            skipped,
            OptionalDouble.empty());
    if (skipped != null) {
      progress.say("step %d skipped: %s".formatted(step, skipped));
    }
    progress.step(metrics, ended);
    boolean last = step == options.steps();
    if (parts.evaluation() != null && (last || step % options.evalSteps() == 0)) {
      metrics = metrics.withEvaluation(evaluate(step, parts.evaluation()));
    }
    if (last || state.stopped() || step % options.sampleSteps() == 0) {
      sample(step);
    }
    record(metrics);
    if (state.skippedInRow() >= options.mostSkipped()) {
      throw new TrainingException(
          ("step %d: %s, as for the %d steps before it that were skipped; expected finite numbers."
                  + " Lower --lr, or lengthen --warmup-steps; checkpoints up to here are kept")
              .formatted(step, skipped, state.skippedInRow() - 1));
    }
    if (options.saveSteps() > 0 && step % options.saveSteps() == 0) {
      save();
    }
    return true;
  }

  /** The gradient of the next step, summed into the parameters', or null if interrupted. */
  private @Nullable Gradient gradient() {
    long targets = parts.batches().targets(state.step());
    long tokens = 0;
    double loss = 0;
    int number = 0;
    parts.model().clearGradients();
    for (MicroBatch batch : parts.batches().step(state.step())) {
      if (interrupted.getAsBoolean()) {
        return null;
      }
      tokens += batch.rows();
      if (targets > 0 && batch.targetCount() > 0) {
        loss += parts.model().accumulate(batch, (float) (1.0 / targets), dropoutKey(number));
      }
      number++;
    }
    return new Gradient(targets == 0 ? 0 : loss / targets, tokens);
  }

  /** Another for each micro-batch of the run. */
  private long dropoutKey(int batch) {
    return Long.rotateLeft(options.seed(), 32) ^ ((long) state.step() << 24 | batch);
  }

  private double evaluate(int step, Batches evaluation) throws IOException {
    double loss = evaluate(evaluation);
    state = state.evaluated(loss, options.leastGain(), options.patience());
    if (state.best() == step) {
      output.checkpoints().best(step, this::write);
    }
    String note =
        state.best() == step
            ? ", the best so far"
            : String.format(Locale.ROOT, ", best %.4f at step %d", state.bestLoss(), state.best());
    progress.say(evaluated(step, loss, note));
    if (state.stopped()) {
      progress.say("no better for %d evaluations: the run ends".formatted(state.sinceBest()));
    }
    return loss;
  }

  private static String evaluated(int step, double loss, String note) {
    return String.format(
        Locale.ROOT,
        "step %d: evaluation loss %.4f, perplexity %.3f%s",
        step,
        loss,
        StrictMath.exp(loss),
        note);
  }

  /**
   * The mean cross-entropy over all rows' targets. Before the first step, it may be left when the
   * run is interrupted: nothing hangs on it yet.
   */
  private double evaluate(Batches evaluation) throws IOException {
    progress.meanwhile("evaluating ...");
    double loss = 0;
    long targets = 0;
    // Rows may be longer than those learned from: paged state makes room, and comes back.
    parts.optimizer().makeRoom(parts.model().activationBytes());
    for (long i = 0; i < evaluation.stepsPerEpoch(); i++) {
      if (state.step() == 0 && interrupted.getAsBoolean()) {
        break;
      }
      for (MicroBatch batch : evaluation.step(i)) {
        if (batch.targetCount() > 0) {
          loss += parts.model().loss(batch);
          targets += batch.targetCount();
        }
      }
    }
    parts.optimizer().restore();
    return loss / targets;
  }

  private void sample(int step) throws IOException {
    Sampler sampler = parts.sampler();
    if (sampler == null) {
      return;
    }
    progress.meanwhile("sampling ...");
    Path folder = Files.createTempDirectory(output.folder(), Disk.UNFINISHED);
    try {
      write(folder);
      for (Answer answer : sampler.answers(folder, step, clock.millis())) {
        output.answers().write(answer);
        output.events().text("samples/" + answer.prompt(), step, answer.time(), answer.answer());
        progress.say("step %d: %s".formatted(step, line(answer.prompt())));
        progress.say("  " + line(answer.answer()));
      }
    } finally {
      Disk.delete(folder);
    }
  }

  private static String line(String text) {
    String line = text.strip().replaceAll("\\s+", " ").replaceAll("\\p{Cntrl}", "\ufffd");
    return line.length() > 200 ? line.substring(0, 200) + " ..." : line;
  }

  private void record(StepMetrics metrics) throws IOException {
    output.metrics().write(metrics);
    output.events().write(metrics);
  }

  private void write(Path folder) throws IOException {
    PeftDirectory.write(
        folder, parts.config(), parts.fingerprint(), parts.parameters(), parts.backend());
  }

  private void save() throws IOException {
    progress.meanwhile("saving ...");
    output
        .checkpoints()
        .save(
            output.identity(),
            state,
            folder -> {
              write(folder);
              parts.optimizer().save(folder.resolve(OPTIMIZER));
            });
  }
}
