package dev.wardrobe.trainer.backward;

import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.Gradients;
import dev.wardrobe.compute.Matrix;
import dev.wardrobe.trainer.data.SplitMix64;
import java.util.function.IntFunction;
import org.jspecify.annotations.Nullable;

/**
 * A frozen projection and what is trained on it, as PEFT computes it ({@code tuners/lora/layer.py},
 * {@code dora.py}):
 *
 * <pre>
 * LoRA   y = W·x + bias + s·B·A·x'                        x' = dropout(x)
 * DoRA   y = W·x + bias + (g - 1) ⊙ W·x' + g ⊙ s·B·A·x'   g = m / n,  n = ‖W + s·B·A‖ by row
 * </pre>
 *
 * <p>DoRA's n counts as a constant on the way back (arXiv 2402.09353, section 4.3).
 */
final class AdaptedLinear {
  /**
   * The trainable part.
   *
   * @param magnitude m, or null where it is plain LoRA
   * @param scale s
   */
  record Factors(Parameter a, Parameter b, @Nullable Parameter magnitude, float scale) {
    int rank() {
      return a.value().rows();
    }
  }

  /** Which dropout masks a pass draws. */
  record Dropout(float p, long key) {
    /** None, as in evaluation. */
    static final Dropout NONE = new Dropout(0, 0);

    /** The key of a module's own mask. */
    long key(int module) {
      return SplitMix64.mix(key ^ SplitMix64.mix(module));
    }
  }

  private final Matrix weight;
  private final @Nullable Buffer bias;
  private final @Nullable Factors factors;
  private final int module;

  /**
   * A projection.
   *
   * @param factors null where nothing is trained
   * @param module its number, on which its dropout depends
   */
  AdaptedLinear(Matrix weight, @Nullable Buffer bias, @Nullable Factors factors, int module) {
    this.weight = weight;
    this.bias = bias;
    this.factors = factors;
    this.module = module;
  }

  boolean trained() {
    return factors != null;
  }

  int out() {
    return weight.rows();
  }

  /**
   * What a forward pass leaves for the way back, beside the input.
   *
   * @param shrunk A·x', {@code (rows, rank)}; null where nothing is trained, as are the others
   *     without DoRA
   * @param direction W·x' + s·B·A·x', {@code (rows, out)}
   * @param norms n, {@code (1, out)}
   * @param gains g, {@code (1, out)}
   */
  record Saved(
      @Nullable Buffer shrunk,
      @Nullable Buffer direction,
      @Nullable Buffer norms,
      @Nullable Buffer gains) {}

  /**
   * Room for what is saved.
   *
   * @param rows makes a buffer for all rows by width
   * @param row makes one of a single row
   */
  Saved saved(IntFunction<Buffer> rows, IntFunction<Buffer> row) {
    if (factors == null) {
      return new Saved(null, null, null, null);
    }
    Buffer shrunk = rows.apply(factors.rank());
    return factors.magnitude == null
        ? new Saved(shrunk, null, null, null)
        : new Saved(shrunk, rows.apply(out()), row.apply(out()), row.apply(out()));
  }

  /**
   * The forward pass.
   *
   * @param x {@code (rows, in)}
   * @param y {@code (rows, out)}; null if only what is saved is wanted again
   */
  void forward(
      Gradients gradients,
      int rows,
      Buffer x,
      @Nullable Buffer y,
      Saved saved,
      Dropout dropout,
      Workspace workspace) {
    Buffer t = saved.shrunk;
    if (factors == null || t == null) {
      if (y != null) {
        gradients.linear(weight, bias, rows, x, y);
      }
      return;
    }
    Buffer dropped = dropped(gradients, rows, x, dropout, workspace);
    gradients.clear(rows, t);
    Buffer a = factors.a.value();
    gradients.product(1, dropped, false, a, true, rows, factors.rank(), a.width(), t);
    if (saved.direction != null) {
      forwardDora(gradients, rows, x, dropped, y, t, saved, dropout, workspace);
    } else if (y != null) {
      gradients.linear(weight, bias, rows, x, y);
      expand(gradients, factors, rows, t, y);
    }
  }

  private void forwardDora(
      Gradients gradients,
      int rows,
      Buffer x,
      Buffer dropped,
      @Nullable Buffer y,
      Buffer t,
      Saved saved,
      Dropout dropout,
      Workspace workspace) {
    Factors own = of(factors);
    Buffer z = of(saved.direction);
    Buffer norms = of(saved.norms);
    Buffer gains = of(saved.gains);
    if (y != null) {
      // They are there still when a pass is made once more: between steps alone they change.
      gradients.rowNorms(weight, own.scale, own.a.value(), own.b.value(), norms);
      gradients.divide(of(own.magnitude).value(), norms, gains);
    }
    gradients.linear(weight, null, rows, dropped, z);
    if (y == null) {
      expand(gradients, own, rows, t, z);
    } else if (dropout.p == 0) {
      expand(gradients, own, rows, t, z);
      gradients.scaleColumns(rows, z, gains, y);
      if (bias != null) {
        gradients.addRow(rows, bias, y);
      }
    } else {
      gradients.linear(weight, bias, rows, x, y);
      gradients.add(rows, -1, z, y);
      expand(gradients, own, rows, t, z);
      Buffer scaled = workspace.scratch(out(), 0);
      gradients.scaleColumns(rows, z, gains, scaled);
      gradients.add(rows, 1, scaled, y);
    }
  }

  private static void expand(Gradients gradients, Factors own, int rows, Buffer t, Buffer y) {
    Buffer b = own.b.value();
    gradients.product(own.scale, t, false, b, true, rows, b.rows(), own.rank(), y);
  }

  private Buffer dropped(
      Gradients gradients, int rows, Buffer x, Dropout dropout, Workspace workspace) {
    if (dropout.p == 0) {
      return x;
    }
    Buffer dropped = workspace.scratch(x.width(), 1);
    gradients.dropout(rows, x, dropout.p, dropout.key(module), dropped);
    return dropped;
  }

  /**
   * The way back: adds to the factors' gradients, and to {@code dx}.
   *
   * @param x as in the forward pass
   * @param dy {@code (rows, out)}
   * @param dx {@code (rows, in)}, or null if nobody below needs it
   */
  void backward(
      Gradients gradients,
      int rows,
      Buffer x,
      Buffer dy,
      @Nullable Buffer dx,
      Saved saved,
      Dropout dropout,
      Workspace workspace) {
    Buffer t = saved.shrunk;
    if (factors == null || t == null) {
      if (dx != null) {
        gradients.linearInput(weight, rows, dy, dx);
      }
      return;
    }
    Buffer a = factors.a.value();
    Buffer b = factors.b.value();
    int rank = factors.rank();
    Buffer dz = dy;
    if (saved.direction != null) {
      dz = backwardDora(gradients, rows, dy, saved, workspace);
    }
    Buffer dt = workspace.scratch(rank, 2);
    gradients.clear(rows, dt);
    gradients.product(factors.scale, dz, false, b, false, rows, rank, out(), dt);
    gradients.product(factors.scale, dz, true, t, false, out(), rank, rows, factors.b.gradient());
    Buffer dropped = dropped(gradients, rows, x, dropout, workspace);
    gradients.product(1, dt, true, dropped, false, rank, a.width(), rows, factors.a.gradient());
    if (dx == null) {
      return;
    }
    if (dropout.p == 0) {
      gradients.linearInput(weight, rows, dz, dx);
      gradients.product(1, dt, false, a, false, rows, a.width(), rank, dx);
      return;
    }
    gradients.linearInput(weight, rows, dy, dx);
    Buffer back = workspace.scratch(a.width(), 3);
    gradients.clear(rows, back);
    if (saved.direction != null) {
      // What W·x' is multiplied by is g - 1.
      gradients.add(rows, -1, dy, dz);
      gradients.linearInput(weight, rows, dz, back);
    }
    gradients.product(1, dt, false, a, false, rows, a.width(), rank, back);
    gradients.dropoutInput(rows, back, dropout.p, dropout.key(module), dx);
  }

  /** Adds to m's gradient; gives that of W·x' + s·B·A·x' as far as g scales it. */
  private Buffer backwardDora(
      Gradients gradients, int rows, Buffer dy, Saved saved, Workspace workspace) {
    Buffer sums = workspace.scratchRow(out(), 4);
    gradients.clear(1, sums);
    gradients.columnDots(rows, dy, of(saved.direction), sums);
    gradients.divide(sums, of(saved.norms), sums);
    gradients.add(1, 1, sums, of(of(factors).magnitude).gradient());
    Buffer dz = workspace.scratch(out(), 0);
    gradients.scaleColumns(rows, dy, of(saved.gains), dz);
    return dz;
  }

  private static <T> T of(@Nullable T value) {
    if (value == null) {
      throw new IllegalStateException("nothing was saved for DoRA");
    }
    return value;
  }
}
