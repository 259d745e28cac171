package dev.wardrobe.trainer.backward;

import dev.wardrobe.compute.Buffer;
import java.util.function.IntFunction;
import org.jspecify.annotations.Nullable;

/** What the way back through a layer needs of its forward pass, beside its input and middle. */
final class Activations {
  /** The first of the workspace's numbers that layers share their activations by. */
  private static final int FIRST = 16;

  final Buffer attentionInput; // (rows, hidden): the first norm's output
  final Buffer q; // (rows, heads · size), rotated
  final Buffer k; // (rows, kvHeads · size)
  final Buffer v;
  final @Nullable Buffer plainQ; // before the heads' norm
  final @Nullable Buffer plainK;
  final Buffer attended; // (rows, heads · size)
  final Buffer logSums; // (rows, heads)
  final Buffer mlpInput; // (rows, hidden): the second norm's output
  final Buffer gate; // (rows, ffn)
  final Buffer up;
  final Buffer activated;

  final AdaptedLinear.Saved savedQ;
  final AdaptedLinear.Saved savedK;
  final AdaptedLinear.Saved savedV;
  final AdaptedLinear.Saved savedO;
  final AdaptedLinear.Saved savedGate;
  final AdaptedLinear.Saved savedUp;
  final AdaptedLinear.Saved savedDown;

  private int number = FIRST;

  /**
   * Room for a layer's activations.
   *
   * @param own whether nobody else may write there; else layers share it, one after the other
   */
  Activations(DecoderLayer layer, int hidden, Workspace workspace, boolean own) {
    IntFunction<Buffer> rows =
        width -> own ? workspace.buffer(width) : workspace.scratch(width, number++);
    IntFunction<Buffer> row = width -> workspace.buffer(1, width);
    attentionInput = rows.apply(hidden);
    q = rows.apply(layer.q.out());
    k = rows.apply(layer.k.out());
    v = rows.apply(layer.v.out());
    plainQ = layer.qNorm == null ? null : rows.apply(layer.q.out());
    plainK = layer.kNorm == null ? null : rows.apply(layer.k.out());
    attended = rows.apply(layer.q.out());
    logSums = rows.apply(layer.heads.queries());
    mlpInput = rows.apply(hidden);
    gate = rows.apply(layer.gate.out());
    up = rows.apply(layer.gate.out());
    activated = rows.apply(layer.gate.out());
    savedQ = layer.q.saved(rows, row);
    savedK = layer.k.saved(rows, row);
    savedV = layer.v.saved(rows, row);
    savedO = layer.o.saved(rows, row);
    savedGate = layer.gate.saved(rows, row);
    savedUp = layer.up.saved(rows, row);
    savedDown = layer.down.saved(rows, row);
  }
}
