package dev.wardrobe.compute.cpu;

import com.google.errorprone.annotations.FormatMethod;
import dev.wardrobe.compute.Batch;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.Step;
import java.util.ArrayList;
import java.util.List;

/** A checked batch, and for each row its run. */
final class CpuStep implements Step {
  private final Batch batch;
  private final int[] runOf;
  private final List<Batch.Segment> outputSegments;

  CpuStep(Batch batch) {
    this.batch = batch;
    int tokens = batch.size();
    runOf = new int[tokens];
    int row = 0;
    for (int i = 0; i < batch.runs().size(); i++) {
      Batch.Run run = batch.runs().get(i);
      require(
          run.from() == row && run.to() > row && run.to() <= tokens,
          "run %d: expected rows from %d within %d, got %d to %d",
          i,
          row,
          tokens,
          run.from(),
          run.to());
      long end = (long) run.position() + run.to() - run.from();
      require(run.position() >= 0, "run %d: position %d", i, run.position());
      long covered = (long) run.blocks().length * KvShape.BLOCK_TOKENS;
      require(
          end <= covered,
          "run %d: positions up to %d, but its block table covers %d",
          i,
          end,
          covered);
      while (row < run.to()) {
        runOf[row++] = i;
      }
    }
    require(row == tokens, "runs: expected to cover %d rows, got %d", tokens, row);

    row = 0;
    for (int i = 0; i < batch.segments().size(); i++) {
      Batch.Segment segment = batch.segments().get(i);
      require(
          segment.from() == row && segment.to() > row && segment.to() <= tokens,
          "segment %d: expected rows from %d within %d, got %d to %d",
          i,
          row,
          tokens,
          segment.from(),
          segment.to());
      require(
          batch.runs().get(runOf[row]).from() == row,
          "segment %d: begins at row %d within a run",
          i,
          row);
      require(
          segment.lora() == null || segment.lora() instanceof CpuLora,
          "segment %d: the adapter is of another backend",
          i);
      row = segment.to();
    }
    require(row == tokens, "segments: expected to cover %d rows, got %d", tokens, row);

    int before = -1;
    for (int output : batch.outputs()) {
      require(
          output > before && output < tokens,
          "outputs: expected ascending rows below %d, got %d after %d",
          tokens,
          output,
          before);
      before = output;
    }
    outputSegments = outputSegments(batch);
  }

  /** The segments counted in outputs instead of rows. */
  private static List<Batch.Segment> outputSegments(Batch batch) {
    int[] outputs = batch.outputs();
    List<Batch.Segment> segments = new ArrayList<>();
    int next = 0;
    for (Batch.Segment segment : batch.segments()) {
      int from = next;
      while (next < outputs.length && outputs[next] < segment.to()) {
        next++;
      }
      if (next > from) {
        segments.add(new Batch.Segment(from, next, segment.lora()));
      }
    }
    return segments;
  }

  @FormatMethod
  private static void require(boolean holds, String message, Object... arguments) {
    if (!holds) {
      throw new IllegalArgumentException(message.formatted(arguments));
    }
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

  /** Segments of outputs {@code from} to {@code to}, counted from {@code from}. */
  List<Batch.Segment> outputSegments(int from, int to) {
    List<Batch.Segment> segments = new ArrayList<>();
    for (Batch.Segment segment : outputSegments) {
      int first = Math.max(from, segment.from());
      int last = Math.min(to, segment.to());
      if (first < last) {
        segments.add(new Batch.Segment(first - from, last - from, segment.lora()));
      }
    }
    return segments;
  }

  @Override
  public void close() {
    // Nothing of it is outside the heap.
  }
}
