package dev.wardrobe.adapter;

import static dev.wardrobe.adapter.AdapterException.message;
import static dev.wardrobe.adapter.AdapterException.plain;

import dev.wardrobe.adapter.AdapterException.Reason;
import dev.wardrobe.compute.Delta;
import dev.wardrobe.model.Model;
import dev.wardrobe.safetensors.SafetensorsException;
import dev.wardrobe.safetensors.SafetensorsFile;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * A LoRA adapter on the host, read from a PEFT directory and found to fit its base.
 *
 * <p>Its identity is its digest: the SHA-256 of its canonical OCI manifest, {@code sha256:} and 64
 * hexadecimal digits, and so of the bytes of {@code adapter_config.json} and {@code
 * adapter_model.safetensors} and nothing else. Immutable; {@link #close} frees the host copy.
 */
public final class Adapter implements AutoCloseable {
  /** The file of a PEFT directory that holds the configuration. */
  public static final String CONFIG = AdapterConfig.FILE;

  /** The file of a PEFT directory that holds the weights. */
  public static final String WEIGHTS = "adapter_model.safetensors";

  /** The key of the weights' metadata that may hold the base's fingerprint. */
  public static final String BASE_FINGERPRINT = Gate.FINGERPRINT;

  static final String PICKLE = "adapter_model.bin";

  /** What kind of low-rank adaptation it is. */
  public enum Kind {
    LORA,
    /** Scale alpha / √r. */
    RSLORA,
    /** With magnitudes; scaled by either rule. */
    DORA;

    static Kind of(AdapterConfig config) {
      return config.dora() ? DORA : config.rsLora() ? RSLORA : LORA;
    }

    /** In lower case, as callers are told it. */
    @Override
    public String toString() {
      return name().toLowerCase(Locale.ROOT);
    }
  }

  private final String digest;
  private final Kind kind;
  private final Gate.Passed passed;
  private final long hostBytes;
  private final Arena arena;

  private Adapter(String digest, Kind kind, Gate.Passed passed, long hostBytes, Arena arena) {
    this.digest = digest;
    this.kind = kind;
    this.passed = passed;
    this.hostBytes = hostBytes;
    this.arena = arena;
  }

  /**
   * Reads the adapter in {@code directory}, which the caller vouches for: links are followed. Each
   * file is read once; what is hashed is what is parsed.
   *
   * @throws AdapterException if a file is missing, damaged or too large, asks for what is not
   *     supported, or does not fit {@code base}
   */
  public static Adapter read(Path directory, Model base, AdapterOptions options)
      throws AdapterException {
    return read(trusted(directory), base, options);
  }

  /** A directory that the operator vouches for. */
  static AdapterDirectory trusted(Path directory) throws AdapterException {
    try {
      return new AdapterDirectory(directory.toRealPath(), null);
    } catch (NoSuchFileException e) {
      throw new AdapterException(
          Reason.NOT_FOUND,
          "expected a PEFT directory at '%s', got none; check the path"
              .formatted(plain(directory.toString())),
          e);
    } catch (IOException e) {
      throw new AdapterException(
          Reason.IO,
          "'%s' cannot be read; check its permissions".formatted(plain(directory.toString())),
          e);
    }
  }

  @SuppressWarnings("MustBeClosedChecker") // The result owns the arena, and closes it.
  static Adapter read(AdapterFiles files, Model base, AdapterOptions options)
      throws AdapterException {
    Arena arena = Arena.ofShared();
    boolean passed = false;
    try {
      Adapter adapter = read(files, base, options, arena);
      passed = true;
      return adapter;
    } finally {
      if (!passed) {
        arena.close();
      }
    }
  }

  private static Adapter read(AdapterFiles files, Model base, AdapterOptions options, Arena arena)
      throws AdapterException {
    AdapterFiles.Contents configBytes;
    try (AdapterFiles.OpenFile file = files.open(AdapterConfig.FILE)) {
      configBytes = file.read(AdapterConfig.LARGEST_FILE, arena);
    }
    AdapterConfig config =
        AdapterConfig.parse(configBytes.bytes().toArray(ValueLayout.JAVA_BYTE), options);
    Gate gate = new Gate(config, base, options);
    checkHasWeights(files);
    AdapterFiles.Contents weights;
    try (AdapterFiles.OpenFile file = files.open(WEIGHTS)) {
      if (file.size() <= options.maxFileBytes() && file.size() > gate.largestFile()) {
        throw new AdapterException(
            Reason.INVALID,
            "%s: expected at most %d bytes for what %s asks for, got %d; it brings more than that"
                .formatted(WEIGHTS, gate.largestFile(), AdapterConfig.FILE, file.size()));
      }
      weights = file.read(options.maxFileBytes(), arena);
    }
    Gate.Passed passed;
    try {
      passed = gate.check(SafetensorsFile.of(weights.bytes(), WEIGHTS));
    } catch (SafetensorsException e) {
      throw new AdapterException(
          Reason.INVALID, message(e) + "; the file is damaged: save it again", e);
    }
    Manifest manifest = new Manifest(configBytes.blob(), weights.blob());
    return new Adapter(
        manifest.digest(), Kind.of(config), passed, manifest.content().bytes(), arena);
  }

  /** Says so if there is a pickle in the place of the weights. */
  static void checkHasWeights(AdapterFiles files) throws AdapterException {
    if (!files.has(WEIGHTS) && files.has(PICKLE)) {
      throw onlyPickle();
    }
  }

  static AdapterException onlyPickle() {
    return new AdapterException(
        Reason.INVALID,
        "expected %s, got only %s, a pickle, which is never read; save the adapter with"
                .formatted(WEIGHTS, PICKLE)
            + " safe_serialization=True");
  }

  /** {@code sha256:} and 64 hexadecimal digits. */
  public String digest() {
    return digest;
  }

  public Kind kind() {
    return kind;
  }

  /** The highest rank of its modules. */
  public int rank() {
    return passed.rank();
  }

  /** How many of the base's modules it changes. */
  public int modules() {
    return passed.deltas().size();
  }

  /** Elements of all its tensors, copies of the base's weights left out. */
  public long parameters() {
    return passed.parameters();
  }

  /** Whether it only adds to what the base computes: no DoRA, no biases or weights of its own. */
  public boolean additive() {
    return passed.deltas().values().stream()
        .allMatch(
            delta -> delta.magnitude() == null && delta.bias() == null && delta.weight() == null);
  }

  /** Bytes that it holds on the host until it is closed. */
  public long hostBytes() {
    return hostBytes;
  }

  /** What is odd about it, but not wrong; a line each. */
  public List<String> warnings() {
    return passed.warnings();
  }

  /** What it changes, by module number; readable until it is closed. */
  public Map<Integer, Delta> deltas() {
    return passed.deltas();
  }

  /** Frees the host copy. Deltas that were made resident stay. */
  @Override
  public void close() {
    if (arena.scope().isAlive()) {
      arena.close();
    }
  }
}
