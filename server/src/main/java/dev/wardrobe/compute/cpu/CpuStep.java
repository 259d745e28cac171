package dev.wardrobe.compute.cpu;

import com.google.errorprone.annotations.FormatMethod;
import dev.wardrobe.compute.Batch;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.Step;
import java.util.Arrays;
import java.util.function.Consumer;

/** A checked batch, and for each row its run. Filled anew for a later batch once it is closed. */
final class CpuStep implements Step {
  private final Consumer<CpuStep> onClose;
  private Batch batch = new Batch();
  private int[] runOf = new int[0];
  private boolean open;

  CpuStep(Consumer<CpuStep> onClose) {
    this.onClose = onClose;
  }

  /** Begins a step over a batch that holds together. */
  CpuStep open(Batch batch) {
    int tokens = batch.size();
    if (runOf.length < tokens) {
      runOf = new int[Math.max(tokens, 2 * runOf.length)];
    }
    checkRuns(batch);
    checkSegments(batch);
    int before = -1;
    for (int i = 0; i < batch.outputs(); i++) {
      int output = batch.output(i);
      if (output <= before || output >= tokens) {
        throw refused(
            "outputs: expected ascending rows below %d, got %d after %d", tokens, output, before);
      }
      before = output;
    }
    this.batch = batch;
    open = true;
    return this;
  }

  private void checkRuns(Batch batch) {
    int tokens = batch.size();
    int row = 0;
    for (int i = 0; i < batch.runs().size(); i++) {
      Batch.Run run = batch.runs().get(i);
      if (run.from() != row || run.to() <= row || run.to() > tokens) {
        throw refused(
            "run %d: expected rows from %d within %d, got %d to %d",
            i, row, tokens, run.from(), run.to());
      }
      if (run.position() < 0) {
        throw refused("run %d: position %d", i, run.position());
      }
      long end = (long) run.position() + run.to() - run.from();
      long covered = (long) run.blocks().length * KvShape.BLOCK_TOKENS;
      if (end > covered) {
        throw refused("run %d: positions up to %d, but its block table covers %d", i, end, covered);
      }
      Arrays.fill(runOf, row, run.to(), i);
      row = run.to();
    }
    if (row != tokens) {
      throw refused("runs: expected to cover %d rows, got %d", tokens, row);
    }
  }

  private void checkSegments(Batch batch) {
    int tokens = batch.size();
    int row = 0;
    for (int i = 0; i < batch.segments().size(); i++) {
      Batch.Segment segment = batch.segments().get(i);
      if (i > 0 && segment.from() == batch.segments().get(i - 1).from()) {
        checkMixed(i, batch.segments().get(i - 1), segment);
        continue;
      }
      if (segment.from() != row || segment.to() <= row || segment.to() > tokens) {
        throw refused(
            "segment %d: expected rows from %d within %d, got %d to %d",
            i, row, tokens, segment.from(), segment.to());
      }
      if (batch.runs().get(runOf[row]).from() != row) {
        throw refused("segment %d: begins at row %d within a run", i, row);
      }
      checkLora(i, segment);
      row = segment.to();
    }
    if (row != tokens) {
      throw refused("segments: expected to cover %d rows, got %d", tokens, row);
    }
  }

  private static void checkLora(int i, Batch.Segment segment) {
    if (segment.lora() != null && !(segment.lora() instanceof CpuLora)) {
      throw refused("segment %d: the adapter is of another backend", i);
    }
    if (!Float.isFinite(segment.scale())) {
      throw refused("segment %d: a scale of %s", i, segment.scale());
    }
    if (segment.scale() != 1 && segment.lora() != null && !segment.lora().additive()) {
      throw refused(
          "segment %d: a scale of %s for an adapter that can be used at scale 1 only",
          i, segment.scale());
    }
  }

  /** A segment that shares its rows with the one before it. */
  private static void checkMixed(int i, Batch.Segment before, Batch.Segment segment) {
    if (segment.to() != before.to()) {
      throw refused(
          "segment %d: expected the rows of the one before it, %d to %d, got %d to %d",
          i, before.from(), before.to(), segment.from(), segment.to());
    }
    checkLora(i, segment);
    if (!adds(before) || !adds(segment)) {
      throw refused("segment %d: shares its rows, which only deltas that can be summed may", i);
    }
  }

  private static boolean adds(Batch.Segment segment) {
    return segment.lora() != null && segment.lora().additive();
  }

  @FormatMethod
  private static IllegalArgumentException refused(String message, Object... arguments) {
    return new IllegalArgumentException(message.formatted(arguments));
  }

  @Override
  public Batch batch() {
    return batch;
  }

  int tokens() {
    return batch.size();
  }

  /** The run of a row. */
  Batch.Run run(int row) {
    return batch.runs().get(runOf[row]);
  }

  /** A row's position in its sequence. */
  int position(int row) {
    Batch.Run run = run(row);
    return run.position() + row - run.from();
  }

  @Override
  public void close() {
    if (open) {
      open = false;
      onClose.accept(this);
    }
  }
}
