package dev.wardrobe.engine;

import com.sun.management.OperatingSystemMXBean;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.model.ModelConfig;
import java.lang.management.ManagementFactory;
import java.util.function.Consumer;

/**
 * The engine's bounds.
 *
 * @param maxSequences most sequences in a step
 * @param prefillTokens most prompt tokens in a step, beside the sequences that decode
 * @param maxLogitRows rows of logits computed at a time; bounds memory only
 * @param maxWaiting most sequences in the queue
 * @param memoryBytes what keys and values, and adapters, have together; {@link #AUTO}: what {@code
 *     kvTokens} and {@code adapterBytes} come to
 * @param kvTokens tokens that the KV cache is sure of, rounded up to blocks; {@link #AUTO} to
 *     derive it
 * @param adapterBytes memory that adapters are sure of; {@link #AUTO} to derive it
 * @param maxLoads most adapters that are brought into memory at a time
 * @param kvType how keys and values are stored
 * @param tenantsApart whether a tenant takes over the keys and values of its own requests alone, so
 *     that it cannot tell from the time that an answer takes what others have asked
 */
public record EngineOptions(
    int maxSequences,
    int prefillTokens,
    int maxLogitRows,
    int maxWaiting,
    long memoryBytes,
    int kvTokens,
    long adapterBytes,
    int maxLoads,
    KvShape.Type kvType,
    boolean tenantsApart) {

  public static final int AUTO = 0;

  public static final EngineOptions DEFAULT =
      new EngineOptions(64, 256, 32, 1024, AUTO, AUTO, AUTO, 2, KvShape.Type.BF16, false);

  /** What the automatic cache may take, and what it may take to hold one whole context. */
  private static final long AUTO_BYTES = 256L << 20;

  private static final long AUTO_CONTEXT_BYTES = 1L << 30;

  /** What adapters may take at most beside the automatic cache. */
  private static final long AUTO_ADAPTER_BYTES = 4L << 30;

  /** The same where memory cannot be taken as it is needed. */
  private static final long EAGER_ADAPTER_BYTES = 256L << 20;

  /** Rows are counted in a grid's second dimension, of which a device has 65,535. */
  private static final int MOST_DEVICE_TOKENS = 1 << 15;

  /** The part that each is sure of. */
  private static final int AUTO_FLOOR = 4;

  public EngineOptions {
    positive("max-batch", maxSequences, 1 << 12);
    positive("prefill-tokens", prefillTokens, 1 << 16);
    positive("max-logit-rows", maxLogitRows, 1 << 16);
    positive("max-waiting", maxWaiting, 1 << 20);
    positive("max-loads", maxLoads, 1 << 10);
    if (adapterBytes < 0 || memoryBytes < 0) {
      throw new IllegalArgumentException(
          "memory-mib, adapter-cache-mib: expected positive numbers, or 0 to derive them, got %d and"
                  .formatted(memoryBytes)
              + " %d bytes".formatted(adapterBytes));
    }
    if (kvTokens < 0) {
      throw new IllegalArgumentException(
          "kv-tokens: expected a positive number, or 0 to derive it, got " + kvTokens);
    }
  }

  private static void positive(String name, int value, int most) {
    if (value < 1 || value > most) {
      throw new IllegalArgumentException(
          "%s: expected 1 to %d, got %d".formatted(name, most, value));
    }
  }

  /** Options while one of them changes. */
  private static final class Draft {
    private int maxSequences;
    private int prefillTokens;
    private int maxLogitRows;
    private int maxWaiting;
    private long memoryBytes;
    private int kvTokens;
    private long adapterBytes;
    private int maxLoads;
    private KvShape.Type kvType;
    private boolean tenantsApart;

    Draft(EngineOptions options) {
      maxSequences = options.maxSequences();
      prefillTokens = options.prefillTokens();
      maxLogitRows = options.maxLogitRows();
      maxWaiting = options.maxWaiting();
      memoryBytes = options.memoryBytes();
      kvTokens = options.kvTokens();
      adapterBytes = options.adapterBytes();
      maxLoads = options.maxLoads();
      kvType = options.kvType();
      tenantsApart = options.tenantsApart();
    }
  }

  private EngineOptions with(Consumer<Draft> change) {
    Draft draft = new Draft(this);
    change.accept(draft);
    return new EngineOptions(
        draft.maxSequences,
        draft.prefillTokens,
        draft.maxLogitRows,
        draft.maxWaiting,
        draft.memoryBytes,
        draft.kvTokens,
        draft.adapterBytes,
        draft.maxLoads,
        draft.kvType,
        draft.tenantsApart);
  }

  public EngineOptions withKvType(KvShape.Type type) {
    return with(draft -> draft.kvType = type);
  }

  public EngineOptions withTenantsApart(boolean apart) {
    return with(draft -> draft.tenantsApart = apart);
  }

  public EngineOptions withMaxSequences(int most) {
    return with(draft -> draft.maxSequences = most);
  }

  public EngineOptions withPrefillTokens(int most) {
    return with(draft -> draft.prefillTokens = most);
  }

  public EngineOptions withMaxLogitRows(int most) {
    return with(draft -> draft.maxLogitRows = most);
  }

  public EngineOptions withMaxWaiting(int most) {
    return with(draft -> draft.maxWaiting = most);
  }

  public EngineOptions withMemoryBytes(long bytes) {
    return with(draft -> draft.memoryBytes = bytes);
  }

  public EngineOptions withKvTokens(int tokens) {
    return with(draft -> draft.kvTokens = tokens);
  }

  public EngineOptions withAdapterBytes(long bytes) {
    return with(draft -> draft.adapterBytes = bytes);
  }

  public EngineOptions withMaxLoads(int most) {
    return with(draft -> draft.maxLoads = most);
  }

  /**
   * The same on a device with memory of its own: where no memory is given, all that it spares; and
   * the logits of a step at once, since a device does a step in one piece.
   *
   * @param spare bytes, or less than 0 if memory is the machine's
   */
  public EngineOptions onDevice(long spare) {
    if (spare < 0) {
      return this;
    }
    EngineOptions whole =
        withMaxLogitRows(Math.max(maxLogitRows, maxSequences))
            .withPrefillTokens(Math.min(prefillTokens, MOST_DEVICE_TOKENS));
    boolean given = memoryBytes != AUTO || kvTokens != AUTO || adapterBytes != AUTO;
    return given || spare == 0 ? whole : whole.withMemoryBytes(spare);
  }

  private static long autoAdapterBytes() {
    if (!System.getProperty("os.name", "").startsWith("Linux")) {
      return EAGER_ADAPTER_BYTES;
    }
    return ManagementFactory.getOperatingSystemMXBean() instanceof OperatingSystemMXBean system
        ? Math.min(AUTO_ADAPTER_BYTES, system.getTotalMemorySize() / 4)
        : EAGER_ADAPTER_BYTES;
  }

  /**
   * How memory is divided. What is given is what a side is sure of; without {@code memoryBytes} the
   * two together are all there is. Where nothing is given, each side is sure of a quarter of what
   * it would have alone, and the rest is for whoever needs it.
   */
  public Budget budget(ModelConfig model) {
    KvShape kv = shape(model);
    long page = kv.blockBytes();
    long adapters = Math.ceilDiv(adapterBytes == AUTO ? autoAdapterBytes() : adapterBytes, page);
    long pages = memoryBytes == AUTO ? kv.blocks() + adapters : memoryBytes / page;
    boolean shared = memoryBytes != AUTO || (kvTokens == AUTO && adapterBytes == AUTO);
    long kvFloor = kv.blocks();
    long adapterFloor = adapters;
    if (shared && kvTokens == AUTO) {
      kvFloor = Math.max(1, Math.min(kvFloor, pages / AUTO_FLOOR));
    }
    if (shared && adapterBytes == AUTO) {
      adapterFloor = Math.min(adapterFloor, pages) / AUTO_FLOOR;
    }
    long most = Integer.MAX_VALUE / KvShape.BLOCK_TOKENS;
    return new Budget(
        new KvShape(
            kv.layers(), kv.kvHeads(), kv.headDim(), (int) Math.clamp(pages, 1, most), kvType),
        (int) Math.min(kvFloor, most),
        (int) Math.min(adapterFloor, most));
  }

  /**
   * The shape of a KV cache that holds {@link #kvTokens}. Derived, it holds every sequence's whole
   * context if 256 MiB are enough for that, else what fits into 256 MiB, but one whole context if 1
   * GiB is enough for it.
   */
  public KvShape shape(ModelConfig model) {
    int block = KvShape.BLOCK_TOKENS;
    KvShape one = new KvShape(model.layers(), model.kvHeads(), model.headDim(), 1, kvType);
    long blocks;
    if (kvTokens != AUTO) {
      blocks = Math.ceilDiv((long) kvTokens, block);
    } else {
      long context = Math.ceilDiv((long) model.contextLength(), block);
      long wanted = context * maxSequences;
      long least = Math.min(context, AUTO_CONTEXT_BYTES / one.blockBytes());
      blocks = Math.min(wanted, Math.max(least, AUTO_BYTES / one.blockBytes()));
    }
    return new KvShape(
        model.layers(),
        model.kvHeads(),
        model.headDim(),
        Math.clamp(blocks, 1, Integer.MAX_VALUE / block),
        kvType);
  }
}
