package dev.wardrobe.trainer.plan;

import dev.wardrobe.adapter.AdaptedModule;
import dev.wardrobe.model.ModelConfig;
import dev.wardrobe.model.Module;
import dev.wardrobe.model.Modules;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * What the forward and backward pass allocate for micro-batches of so many rows, buffer by buffer
 * as {@code TrainableModel}'s room, {@code Activations} and {@code Workspace} do. Where one of them
 * changes, this does: a test compares the sums.
 */
final class Rooms {
  /** Most bytes of logits at a time, and the rows that they have at least. */
  private static final long LOGIT_BYTES = 32L << 20;

  private static final int LEAST_LOGIT_ROWS = 16;

  private final long rows;
  private final int elementBytes;
  private final boolean dora;
  private final Map<Integer, AdaptedModule> adapted = new HashMap<>();
  private final Set<List<Integer>> shared = new HashSet<>();

  /** Inputs and middles of layers, which are kept from the forward to the backward pass. */
  long kept;

  /** Activations of the layers that keep theirs, and of the one that is computed again. */
  long activations;

  /** What an operation needs for a moment. */
  long scratch;

  /** Logits of some rows, and what leads to them. */
  long logits;

  private int number;

  /**
   * Counts.
   *
   * @param elementBytes of an activation
   */
  Rooms(
      ModelConfig config,
      Modules modules,
      List<AdaptedModule> trained,
      boolean dora,
      boolean dropout,
      int rows,
      int keep,
      int elementBytes) {
    this.rows = rows;
    this.elementBytes = elementBytes;
    this.dora = dora;
    trained.forEach(each -> adapted.put(each.module().id(), each));
    int hidden = config.hidden();
    int layers = config.layers();
    kept = buffer(hidden) * (2L * layers + 2) + 2 * buffer(config.headDim() / 2);
    logits = logits(config);
    for (int i = 0; i < layers; i++) {
      number = 16;
      boolean own = i >= layers - keep;
      Modules.Layer layer = modules.layer(i);
      activations += layer(layer, config, own);
      scratch += scratch(layer, hidden, dropout);
    }
  }

  private long logits(ModelConfig config) {
    long fitting = LOGIT_BYTES / (4L * config.vocabulary());
    long chunk = Math.min(rows, Math.clamp(fitting, LEAST_LOGIT_ROWS, 1 << 16));
    return elementBytes * chunk * (config.vocabulary() + 3L * config.hidden());
  }

  private long layer(Modules.Layer m, ModelConfig config, boolean own) {
    int hidden = config.hidden();
    int q = m.q().out();
    int k = m.k().out();
    int ffn = m.gate().out();
    long bytes = activation(hidden, own);
    bytes += activation(q, own) + activation(k, own) + activation(k, own);
    bytes += m.qNorm() == null ? 0 : activation(q, own);
    bytes += m.kNorm() == null ? 0 : activation(k, own);
    bytes += activation(q, own) + activation(config.heads(), own);
    bytes += activation(hidden, own);
    bytes += activation(ffn, own) + activation(ffn, own) + activation(ffn, own);
    for (Module module : projections(m)) {
      AdaptedModule trained = adapted.get(module.id());
      if (trained != null) {
        bytes += activation(trained.rank(), own);
        if (dora) {
          bytes += activation(module.out(), own) + 2L * elementBytes * module.out();
        }
      }
    }
    return bytes;
  }

  private long scratch(Modules.Layer m, int hidden, boolean dropout) {
    long bytes = 0;
    for (Module module : projections(m)) {
      AdaptedModule trained = adapted.get(module.id());
      if (trained == null) {
        continue;
      }
      bytes += dora ? shared(module.out(), 0) + sharedRow(module.out(), 4) : 0;
      bytes += dropout ? shared(module.in(), 1) + shared(module.in(), 3) : 0;
      bytes += shared(trained.rank(), 2);
    }
    bytes += shared(m.q().out(), 5) + shared(m.k().out(), 6) + shared(m.k().out(), 7);
    return bytes + shared(m.gate().out(), 9) + shared(hidden, 8) + shared(m.q().out(), 8);
  }

  private static List<Module> projections(Modules.Layer m) {
    return List.of(m.q(), m.k(), m.v(), m.o(), m.gate(), m.up(), m.down());
  }

  private long activation(int width, boolean own) {
    return own ? buffer(width) : shared(width, number++);
  }

  private long shared(int width, int use) {
    return shared.add(List.of(width, use)) ? buffer(width) : 0;
  }

  private long sharedRow(int width, int use) {
    return shared.add(List.of(width, -use)) ? (long) elementBytes * width : 0;
  }

  private long buffer(int width) {
    return elementBytes * rows * width;
  }

  long total() {
    return kept + activations + scratch + logits;
  }

  /** The widest projection, of which a GPU holds one at 16 bits while it is multiplied. */
  static long widest(Modules modules) {
    @Nullable Module widest = null;
    for (Module module : modules.all()) {
      long size = (long) module.out() * module.in();
      if (module.kind() == Module.Kind.LINEAR
          && (widest == null || size > (long) widest.out() * widest.in())) {
        widest = module;
      }
    }
    return widest == null ? 0 : (long) widest.out() * widest.in();
  }
}
