package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.Batch;
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
    batch.check(CpuLora.class);
    int tokens = batch.size();
    if (runOf.length < tokens) {
      runOf = new int[Math.max(tokens, 2 * runOf.length)];
    }
    for (int i = 0; i < batch.runs().size(); i++) {
      Batch.Run run = batch.runs().get(i);
      Arrays.fill(runOf, run.from(), run.to(), i);
    }
    this.batch = batch;
    open = true;
    return this;
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
