package dev.wardrobe.trainer.backward;

import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.Gradients;
import dev.wardrobe.compute.Heads;
import org.jspecify.annotations.Nullable;

/**
 * A layer of the decoder, forward and back:
 *
 * <pre>
 * middle = input + o(attention(rotate(norm(q(n1))), rotate(norm(k(n1))), v(n1)))    n1 = norm(input)
 * output = middle + down(silu(gate(n2)) ⊙ up(n2))                                   n2 = norm(middle)
 * </pre>
 */
final class DecoderLayer {
  final Heads heads;
  final AdaptedLinear q;
  final AdaptedLinear k;
  final AdaptedLinear v;
  final AdaptedLinear o;
  final AdaptedLinear gate;
  final AdaptedLinear up;
  final AdaptedLinear down;
  final @Nullable Buffer qNorm;
  final @Nullable Buffer kNorm;
  private final Buffer inputNorm;
  private final Buffer middleNorm;
  private final float epsilon;

  DecoderLayer(
      Heads heads,
      float epsilon,
      Buffer inputNorm,
      AdaptedLinear q,
      AdaptedLinear k,
      AdaptedLinear v,
      @Nullable Buffer qNorm,
      @Nullable Buffer kNorm,
      AdaptedLinear o,
      Buffer middleNorm,
      AdaptedLinear gate,
      AdaptedLinear up,
      AdaptedLinear down) {
    this.heads = heads;
    this.epsilon = epsilon;
    this.inputNorm = inputNorm;
    this.q = q;
    this.k = k;
    this.v = v;
    this.qNorm = qNorm;
    this.kNorm = kNorm;
    this.o = o;
    this.middleNorm = middleNorm;
    this.gate = gate;
    this.up = up;
    this.down = down;
  }

  /** Whether the way back has anything to do here. */
  boolean trained() {
    return attentionTrained() || o.trained() || gate.trained() || up.trained() || down.trained();
  }

  private boolean attentionTrained() {
    return q.trained() || k.trained() || v.trained();
  }

  /** What all layers need to know of the micro-batch. */
  record Pass(
      Gradients gradients,
      int[] starts,
      int[] positions,
      Buffer cos,
      Buffer sin,
      AdaptedLinear.Dropout dropout,
      Workspace workspace) {
    int rows() {
      return positions.length;
    }
  }

  /** From {@code input} to {@code middle} and {@code output}, each {@code (rows, hidden)}. */
  void forward(Pass pass, Buffer input, Buffer middle, Buffer output, Activations to) {
    Gradients g = pass.gradients;
    int rows = pass.rows();
    attend(pass, input, to);
    apply(pass, o, to.attended, middle, to.savedO);
    g.add(rows, 1, input, middle);
    activate(pass, middle, to);
    apply(pass, down, to.activated, output, to.savedDown);
    g.add(rows, 1, middle, output);
  }

  /** Makes the activations once more, from what was kept; the outputs are not wanted again. */
  void recompute(Pass pass, Buffer input, Buffer middle, Activations to) {
    attend(pass, input, to);
    apply(pass, o, to.attended, null, to.savedO);
    activate(pass, middle, to);
    apply(pass, down, to.activated, null, to.savedDown);
  }

  private void attend(Pass pass, Buffer input, Activations to) {
    Gradients g = pass.gradients;
    int rows = pass.rows();
    g.norm(input, inputNorm, epsilon, rows, to.attentionInput);
    apply(pass, q, to.attentionInput, to.plainQ == null ? to.q : to.plainQ, to.savedQ);
    apply(pass, k, to.attentionInput, to.plainK == null ? to.k : to.plainK, to.savedK);
    apply(pass, v, to.attentionInput, to.v, to.savedV);
    if (qNorm != null && to.plainQ != null) {
      g.norm(to.plainQ, qNorm, epsilon, rows, to.q);
    }
    if (kNorm != null && to.plainK != null) {
      g.norm(to.plainK, kNorm, epsilon, rows, to.k);
    }
    g.rotate(to.q, heads.size(), pass.cos, pass.sin, pass.positions, false);
    g.rotate(to.k, heads.size(), pass.cos, pass.sin, pass.positions, false);
    g.attention(pass.starts, heads, to.q, to.k, to.v, to.attended, to.logSums);
  }

  private void activate(Pass pass, Buffer middle, Activations to) {
    int rows = pass.rows();
    pass.gradients.norm(middle, middleNorm, epsilon, rows, to.mlpInput);
    apply(pass, gate, to.mlpInput, to.gate, to.savedGate);
    apply(pass, up, to.mlpInput, to.up, to.savedUp);
    pass.gradients.activate(rows, to.gate, to.up, to.activated);
  }

  private static void apply(
      Pass pass, AdaptedLinear linear, Buffer x, @Nullable Buffer y, AdaptedLinear.Saved saved) {
    linear.forward(pass.gradients, pass.rows(), x, y, saved, pass.dropout, pass.workspace);
  }

  /**
   * The way back.
   *
   * @param d {@code (rows, hidden)}: the output's gradient, and then the input's
   * @param below whether the input's is wanted
   * @param from overwritten in part
   */
  void backward(Pass pass, Buffer input, Buffer middle, Buffer d, boolean below, Activations from) {
    Gradients g = pass.gradients;
    Workspace workspace = pass.workspace;
    int rows = pass.rows();
    int hidden = d.width();

    // Not the room of those below, which may be as wide.
    Buffer dActivated = cleared(pass, gate.out(), 9);
    back(pass, down, from.activated, d, dActivated, from.savedDown);
    g.activateInput(rows, from.gate, from.up, dActivated, from.gate, dActivated);
    Buffer dInput = cleared(pass, hidden, 8);
    back(pass, gate, from.mlpInput, from.gate, dInput, from.savedGate);
    back(pass, up, from.mlpInput, dActivated, dInput, from.savedUp);
    g.normInput(middle, middleNorm, epsilon, rows, dInput, d);

    if (!below && !attentionTrained() && !o.trained()) {
      return;
    }
    Buffer dAttended = cleared(pass, q.out(), 8);
    back(pass, o, from.attended, d, dAttended, from.savedO);
    if (!below && !attentionTrained()) {
      return;
    }
    Buffer dq = workspace.scratch(q.out(), 5);
    Buffer dk = workspace.scratch(k.out(), 6);
    Buffer dv = workspace.scratch(k.out(), 7);
    g.attentionInput(
        pass.starts,
        heads,
        from.q,
        from.k,
        from.v,
        from.attended,
        from.logSums,
        dAttended,
        dq,
        dk,
        dv);
    g.rotate(dq, heads.size(), pass.cos, pass.sin, pass.positions, true);
    g.rotate(dk, heads.size(), pass.cos, pass.sin, pass.positions, true);
    if (qNorm != null && from.plainQ != null) {
      dq = normBack(pass, from.plainQ, qNorm, dq, from.q);
    }
    if (kNorm != null && from.plainK != null) {
      dk = normBack(pass, from.plainK, kNorm, dk, from.k);
    }
    Buffer dNormed = below ? cleared(pass, hidden, 8) : null;
    back(pass, q, from.attentionInput, dq, dNormed, from.savedQ);
    back(pass, k, from.attentionInput, dk, dNormed, from.savedK);
    back(pass, v, from.attentionInput, dv, dNormed, from.savedV);
    if (dNormed != null) {
      g.normInput(input, inputNorm, epsilon, rows, dNormed, d);
    }
  }

  /** Back through the heads' norm, to where its output was. */
  private Buffer normBack(Pass pass, Buffer x, Buffer weight, Buffer dy, Buffer dx) {
    pass.gradients.clear(pass.rows(), dx);
    pass.gradients.normInput(x, weight, epsilon, pass.rows(), dy, dx);
    return dx;
  }

  private static Buffer cleared(Pass pass, int width, int number) {
    Buffer buffer = pass.workspace.scratch(width, number);
    pass.gradients.clear(pass.rows(), buffer);
    return buffer;
  }

  private static void back(
      Pass pass,
      AdaptedLinear linear,
      Buffer x,
      Buffer dy,
      @Nullable Buffer dx,
      AdaptedLinear.Saved saved) {
    linear.backward(pass.gradients, pass.rows(), x, dy, dx, saved, pass.dropout, pass.workspace);
  }
}
