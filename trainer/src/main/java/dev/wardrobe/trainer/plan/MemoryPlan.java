package dev.wardrobe.trainer.plan;

import dev.wardrobe.adapter.AdaptedModule;
import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.model.MemoryUse;
import dev.wardrobe.model.ModelConfig;
import dev.wardrobe.model.ModelException;
import dev.wardrobe.model.Modules;
import dev.wardrobe.trainer.optim.OptimizerOptions;
import dev.wardrobe.trainer.optim.PagerOptions;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/**
 * Where a run's memory goes, from a model's configuration alone.
 *
 * @param device where it is to train
 * @param parameters of the base
 * @param trained parameters of the adapter
 * @param modules that are adapted
 * @param terms in fast memory: the device's
 * @param paged bytes of optimizer state in host memory or a file
 */
public record MemoryPlan(
    Device device, long parameters, long trained, int modules, List<Term> terms, long paged) {
  /*
   * The formula. P: trained parameters; n: rows of a micro-batch.
   *
   *   base          n/2 + n/64 + 4n/16384 bytes per projection of n weights (4.127 bits), as the
   *                 server's loader counts them; embedding and head as stored; norms in float32
   *   adapter       4P values, 4P gradients
   *   optimizer     AdamW 8P, in 8 bits 2.03P; Lion half of that; SGD nothing; a paged one's in fast
   *                 memory is at most its budget
   *   activations   Rooms: two hidden rows per layer and token, one layer's activations, logits of
   *                 32 MiB at a time
   *   runtime       a constant
   */

  /**
   * Bytes of Java itself beside what is counted: code, classes, threads, its heap's slack and what
   * kernels work in. Measured on SmolLM2 with the launcher's options, of which the serial collector
   * is one that matters.
   */
  static final long JVM_BYTES = 280L << 20;

  /** Bytes that a CUDA context and its libraries take. */
  static final long CONTEXT_BYTES = 1L << 30;

  /**
   * One use of memory.
   *
   * @param name short, for tables
   * @param key for machines
   * @param note how it comes about
   */
  public record Term(String name, String key, long bytes, String note) {}

  public MemoryPlan {
    terms = List.copyOf(terms);
  }

  /**
   * Plans.
   *
   * @throws ModelException if what quantization skips cannot be understood
   * @throws AdapterException if the options choose nothing of this base, or more than its
   *     projections
   */
  public static MemoryPlan of(ModelConfig config, PlanOptions options, Device device)
      throws ModelException, AdapterException {
    Modules modules = Modules.of(config);
    byte[] adapter = options.lora().config().toString().getBytes(StandardCharsets.UTF_8);
    List<AdaptedModule> adapted = AdaptedModule.of(adapter, modules);
    boolean dora = options.lora().dora();
    long trained = 0;
    long state = 0;
    for (AdaptedModule each : adapted) {
      long a = (long) each.rank() * each.module().in();
      long b = (long) each.rank() * each.module().out();
      long magnitude = dora ? each.module().out() : 0;
      trained += a + b + magnitude;
      state += options.optimizer().stateBytes(a) + options.optimizer().stateBytes(b);
      state += dora ? options.optimizer().stateBytes(magnitude) : 0;
    }
    long resident = resident(state, options);
    MemoryUse base = MemoryUse.expected(config, options.load());
    Rooms rooms =
        new Rooms(
            config,
            modules,
            adapted,
            dora,
            options.lora().dropout() > 0,
            options.rows(),
            Math.min(options.keep(), config.layers()),
            device.gpu() && options.fast() ? Short.BYTES : Float.BYTES);

    List<Term> terms = new ArrayList<>();
    terms.add(new Term("base, 4 bits", "base", base.quantized(), "projections"));
    terms.add(
        new Term(
            "base, other weights",
            "other_weights",
            base.total() - base.quantized(),
            "embedding, head, norms"));
    terms.add(
        new Term(
            "adapter", "adapter", 2L * Float.BYTES * trained, "values and gradients in float32"));
    terms.add(
        new Term(
            "optimizer state",
            "optimizer",
            resident,
            resident == state ? optimizer(options) : optimizer(options) + ", paged"));
    terms.add(
        new Term("layers' inputs", "checkpoints", rooms.kept, "two rows per layer and token"));
    terms.add(
        new Term(
            "activations",
            "activations",
            rooms.activations,
            options.keep() == 0
                ? "one layer's, computed again"
                : "%d layers' kept".formatted(Math.min(options.keep(), config.layers()))));
    terms.add(new Term("working room", "scratch", rooms.scratch, "gradients of activations"));
    terms.add(new Term("logits", "logits", rooms.logits, "some rows at a time"));
    if (device.gpu()) {
      long widest = Short.BYTES * Rooms.widest(modules);
      terms.add(new Term("a dense weight", "dequantized", widest, "the largest, in bfloat16"));
      terms.add(new Term("CUDA", "runtime", CONTEXT_BYTES, "allowed for"));
    } else {
      terms.add(new Term("Java", "runtime", JVM_BYTES, "allowed for"));
    }
    return new MemoryPlan(
        device, base.parameters(), trained, adapted.size(), terms, state - resident);
  }

  private static String optimizer(PlanOptions options) {
    OptimizerOptions optimizer = options.optimizer();
    return "%s, %d bits"
        .formatted(
            switch (optimizer.rule()) {
              case ADAMW -> "AdamW";
              case LION -> "Lion";
              case SGD -> "SGD";
            },
            optimizer.eightBit() ? 8 : 32);
  }

  private static long resident(long state, PlanOptions options) {
    long budget = options.pagedBudget().of(state);
    if (!options.optimizer().paged() || budget >= state) {
      return state;
    }
    long page = PagerOptions.PAGE_BYTES;
    return Math.min(state, Math.max(page, budget / page * page));
  }

  /** Bytes of fast memory. */
  public long total() {
    return terms.stream().mapToLong(Term::bytes).sum();
  }

  public boolean fits() {
    return total() <= device.bytes();
  }

  /** The term of a key. */
  long bytes(String key) {
    return terms.stream().filter(t -> t.key().equals(key)).mapToLong(Term::bytes).sum();
  }
}
