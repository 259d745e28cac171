package dev.wardrobe.adapter;

import static dev.wardrobe.adapter.AdapterException.message;
import static dev.wardrobe.adapter.AdapterException.plain;
import static dev.wardrobe.adapter.AdapterException.quote;

import dev.wardrobe.adapter.AdapterException.Reason;
import dev.wardrobe.compute.Delta;
import dev.wardrobe.compute.DenseMatrix;
import dev.wardrobe.model.Model;
import dev.wardrobe.model.Module;
import dev.wardrobe.safetensors.SafetensorsException;
import dev.wardrobe.safetensors.SafetensorsFile;
import dev.wardrobe.safetensors.TensorInfo;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.regex.PatternSyntaxException;
import org.jspecify.annotations.Nullable;

/**
 * The efficacy gate: what a config asks for of a base, held against what a weight file brings.
 *
 * <p>Only an exact fit passes: each module that PEFT would adapt has its tensors, of the right
 * shape, rank and type, finite; no tensor is left over; scales come from the config; and the base
 * is the one the adapter names. So nothing is ever ignored, nor scaled wrongly.
 */
final class Gate {
  /** The key in a weight file's metadata that may hold the base's fingerprint. */
  static final String FINGERPRINT = "wardrobe.base_fingerprint";

  private static final String PREFIX = "base_model.model.";
  private static final Pattern MODULE =
      Pattern.compile("(.*?)\\.(?:lora_.*|base_layer\\..*|original_module\\..*|weight|bias)");
  private static final Pattern FINGERPRINT_FORM = Pattern.compile("(?:sha256:)?[0-9a-fA-F]{64}");

  private final AdapterConfig config;
  private final Model base;
  private final AdapterOptions options;
  private final Targets.Resolved targets;
  private final Map<Module, Plan> plans = new LinkedHashMap<>();
  private final Map<String, Slot> slots = new LinkedHashMap<>();
  private final List<String> warnings = new ArrayList<>();

  /**
   * Rank and scale of an adapted module.
   *
   * @param scaling as PEFT computes it, in double
   */
  record Plan(int rank, double scaling) {
    float scale() {
      return (float) scaling;
    }
  }

  /** What a tensor is to its module. */
  private enum Role {
    A,
    B,
    MAGNITUDE,
    LORA_BIAS,
    BIAS,
    WEIGHT,
    /** The base's own weight once more, as PEFT adds it for embedding and head. */
    COPY;

    boolean isFactor() {
      return this == A || this == B;
    }
  }

  /** A tensor that the config asks for. */
  private record Slot(Module module, Role role, List<Long> shape) {
    boolean required() {
      return role != Role.COPY;
    }

    long elements() {
      return shape.stream().reduce(1L, Math::multiplyExact);
    }
  }

  /** What passed: the deltas by module number, and what they amount to. */
  record Passed(Map<Integer, Delta> deltas, int rank, long parameters, List<String> warnings) {}

  /** One module's delta while its tensors are gathered. */
  private static final class Parts {
    @Nullable DenseMatrix a;
    @Nullable DenseMatrix b;
    float @Nullable [] magnitude;
    float @Nullable [] loraBias;
    float @Nullable [] bias;
    @Nullable DenseMatrix weight;
    boolean zeroFactor;
    boolean effect;

    Delta delta(float scale) {
      Delta.LowRank lowRank = a == null || b == null ? null : new Delta.LowRank(a, b);
      return new Delta(lowRank, scale, magnitude, loraBias, bias, weight);
    }
  }

  /**
   * Works out what {@code config} asks for of {@code base}.
   *
   * @throws AdapterException if that cannot be had of this base
   */
  Gate(AdapterConfig config, Model base, AdapterOptions options) throws AdapterException {
    this.config = config;
    this.base = base;
    this.options = options;
    warnings.addAll(config.warnings());
    checkFingerprint(AdapterConfig.FILE + ": " + PeftField.FINGERPRINT, config.fingerprint());
    checkName();
    PythonRegex.Steps steps = new PythonRegex.Steps();
    targets = config.targets().resolve(base.modules().all(), steps);
    warnings.addAll(targets.warnings());
    for (Module module : base.modules().all()) {
      if (targets.adapted().contains(module)) {
        plans.put(module, plan(config, module, steps));
      }
    }
    checkTying();
    base.modules().all().forEach(this::addSlots);
  }

  /** What {@code config} says of a module that it adapts. */
  static Plan plan(AdapterConfig config, Module module, PythonRegex.Steps steps)
      throws AdapterException {
    int rank;
    double alpha;
    try {
      rank = config.rank(module.path(), steps);
      alpha = config.alpha(module.path(), steps);
    } catch (PatternSyntaxException e) {
      throw invalid(
          "rank_pattern or alpha_pattern: %s; name the modules plainly"
              .formatted(plain(e.getDescription())));
    }
    Plan plan = new Plan(rank, config.rsLora() ? alpha / Math.sqrt(rank) : alpha / rank);
    if (!Float.isFinite(plan.scale())) {
      throw invalid(
          "%s: expected a scale that float32 holds, got alpha %s over rank %d"
              .formatted(module.path(), alpha, rank));
    }
    if (module.kind() == Module.Kind.EMBEDDING && config.loraBias()) {
      throw invalid(
          "lora_bias is true and target_modules selects %s; PEFT has no bias there: leave it out"
              .formatted(module.path()));
    }
    return plan;
  }

  private void checkTying() throws AdapterException {
    if (config.ensureTying() && base.config().tied()) {
      for (Module module : List.of(base.modules().embedding(), base.modules().head())) {
        if (targets.adapted().contains(module) || targets.replaced().contains(module)) {
          throw invalid(
              "ensure_weight_tying: expected false, got true for %s, which is tied in this base; one"
                      .formatted(module.path())
                  + " adapter for both ends is not supported: train it without");
        }
      }
    }
  }

  private void checkName() {
    String name = config.base();
    if (name == null || name.isEmpty()) {
      return;
    }
    int end = name.length();
    while (end > 0 && name.charAt(end - 1) == '/') {
      end--;
    }
    String theirs =
        name.substring(name.lastIndexOf('/', end - 1) + 1, end).toLowerCase(Locale.ROOT);
    String ours = base.name().toLowerCase(Locale.ROOT);
    if (!ours.contains(theirs) && !theirs.contains(ours)) {
      warnings.add(
          "made for the base %s by its base_model_name_or_path, served over %s"
              .formatted(quote(name), quote(base.name())));
    }
  }

  private void checkFingerprint(String where, @Nullable String fingerprint)
      throws AdapterException {
    if (fingerprint == null) {
      return;
    }
    if (!FINGERPRINT_FORM.matcher(fingerprint).matches()) {
      throw new AdapterException(
          Reason.INVALID,
          "%s: expected 64 hexadecimal digits, got %s".formatted(where, quote(fingerprint)));
    }
    String theirs = fingerprint.substring(fingerprint.length() - 64).toLowerCase(Locale.ROOT);
    if (!theirs.equals(base.fingerprint())) {
      throw new AdapterException(
          Reason.MISMATCH,
          "%s: expected this base's fingerprint %s, got %s; serve the adapter over the base that it"
                  .formatted(
                      where,
                      base.fingerprint().isEmpty() ? "(none: not quantized)" : base.fingerprint(),
                      theirs)
              + " was trained on, quantized the same way");
    }
  }

  private void addSlots(Module module) {
    String path = PREFIX + module.path();
    long out = module.out();
    long in = module.in();
    boolean outer = module.kind() == Module.Kind.EMBEDDING || module.kind() == Module.Kind.HEAD;
    Plan plan = plans.get(module);
    if (plan != null) {
      long rank = plan.rank();
      if (module.kind() == Module.Kind.EMBEDDING) {
        add(path + ".lora_embedding_A", module, Role.A, rank, out);
        add(path + ".lora_embedding_B", module, Role.B, in, rank);
      } else {
        add(path + ".lora_A.weight", module, Role.A, rank, in);
        add(path + ".lora_B.weight", module, Role.B, out, rank);
      }
      if (config.dora()) {
        long outputs = module.kind() == Module.Kind.EMBEDDING ? in : out;
        add(path + ".lora_magnitude_vector", module, Role.MAGNITUDE, outputs);
      }
      if (config.loraBias()) {
        add(path + ".lora_B.bias", module, Role.LORA_BIAS, out);
      }
      if (config.bias() != AdapterConfig.Bias.NONE && module.bias()) {
        add(path + ".base_layer.bias", module, Role.BIAS, out);
      }
      if (outer) {
        add(path + ".base_layer.weight", module, Role.COPY, out, in);
      }
    } else if (targets.replaced().contains(module)) {
      if (module.kind() == Module.Kind.NORM) {
        add(path + ".weight", module, Role.WEIGHT, out);
      } else {
        add(path + ".weight", module, Role.WEIGHT, out, in);
      }
      if (module.bias()) {
        add(path + ".bias", module, Role.BIAS, out);
      }
    } else if (outer) {
      add(path + ".weight", module, Role.COPY, out, in);
    } else if (config.bias() == AdapterConfig.Bias.ALL && module.bias()) {
      add(path + ".bias", module, Role.BIAS, out);
    }
  }

  private void add(String name, Module module, Role role, Long... shape) {
    slots.put(name, new Slot(module, role, List.of(shape)));
  }

  /** Most bytes that a weight file can have and still fit. */
  long largestFile() {
    long header = 100_000_008;
    return slots.values().stream().mapToLong(s -> s.elements() * 4).reduce(header, Math::addExact);
  }

  /**
   * Holds the file against the config.
   *
   * @throws AdapterException at the first thing that does not fit
   */
  Passed check(SafetensorsFile file) throws AdapterException {
    checkFingerprint(Adapter.WEIGHTS + ": " + FINGERPRINT, file.metadata().get(FINGERPRINT));
    for (TensorInfo tensor : file.tensors().values()) {
      if (!slots.containsKey(tensor.name())) {
        throw leftOver(tensor);
      }
    }
    for (Map.Entry<String, Slot> entry : slots.entrySet()) {
      TensorInfo tensor = file.find(entry.getKey());
      if (tensor != null) {
        checkType(tensor);
        checkShape(tensor, entry.getValue());
      } else if (entry.getValue().required()) {
        throw missing(entry.getKey(), entry.getValue());
      }
    }
    Map<Module, Parts> parts = new LinkedHashMap<>();
    long parameters = 0;
    for (Map.Entry<String, Slot> entry : slots.entrySet()) {
      Slot slot = entry.getValue();
      TensorInfo tensor = file.find(entry.getKey());
      if (tensor != null && slot.role() == Role.COPY) {
        checkCopy(file, tensor, slot);
      } else if (tensor != null) {
        gather(file, tensor, slot, parts.computeIfAbsent(slot.module(), m -> new Parts()));
        parameters += tensor.elements();
      }
    }
    checkEffect(parts);
    Map<Integer, Delta> deltas = new TreeMap<>();
    int rank = 0;
    for (Map.Entry<Module, Parts> entry : parts.entrySet()) {
      Plan plan = plans.get(entry.getKey());
      deltas.put(entry.getKey().id(), entry.getValue().delta(plan == null ? 0 : plan.scale()));
      rank = Math.max(rank, plan == null ? 0 : plan.rank());
    }
    return new Passed(deltas, rank, parameters, List.copyOf(warnings));
  }

  private static void checkType(TensorInfo tensor) throws AdapterException {
    if (!tensor.dtype().widens()) {
      throw weights(
          "%s: expected F32, F16 or BF16, got %s; save the adapter in one of them"
              .formatted(quote(tensor.name()), tensor.dtype()));
    }
  }

  private void checkShape(TensorInfo tensor, Slot slot) throws AdapterException {
    List<Long> expected = slot.shape();
    List<Long> got = tensor.shape();
    if (got.equals(expected)) {
      return;
    }
    String name = quote(tensor.name());
    if (expected.size() == 2 && got.size() == 2) {
      if (got.equals(expected.reversed())) {
        throw weights(
            "%s: expected shape %s, got %s: it is transposed; A is (rank, in) and B (out, rank)"
                .formatted(name, expected, got));
      }
      int rankAt = slot.role() == Role.A ? 0 : 1;
      if (slot.role().isFactor() && got.get(1 - rankAt).equals(expected.get(1 - rankAt))) {
        throw weights(
            "%s: expected rank %d as %s says, got %d %s (shape %s); correct r or rank_pattern, or"
                    .formatted(
                        name,
                        expected.get(rankAt),
                        AdapterConfig.FILE,
                        got.get(rankAt),
                        rankAt == 0 ? "rows" : "columns",
                        got)
                + " save the adapter again");
      }
    }
    throw new AdapterException(
        Reason.MISMATCH,
        "%s: %s: expected shape %s, which this base's %s asks for, got %s; was it made for another"
                .formatted(Adapter.WEIGHTS, name, expected, slot.module().path(), got)
            + " base?");
  }

  private static AdapterException invalid(String message) {
    return new AdapterException(Reason.INVALID, AdapterConfig.FILE + ": " + message);
  }

  private static AdapterException weights(String message) {
    return new AdapterException(Reason.INVALID, Adapter.WEIGHTS + ": " + message);
  }

  private AdapterException missing(String name, Slot slot) {
    String why =
        switch (slot.role()) {
          case A, B -> "target_modules selects " + slot.module().path();
          case MAGNITUDE -> "use_dora is true";
          case LORA_BIAS -> "lora_bias is true";
          case BIAS ->
              plans.containsKey(slot.module()) || !targets.replaced().contains(slot.module())
                  ? "bias is " + config.bias().name().toLowerCase(Locale.ROOT)
                  : "modules_to_save names " + slot.module().path();
          case WEIGHT, COPY -> "modules_to_save names " + slot.module().path();
        };
    return weights(
        "expected a tensor %s, since %s in %s, got none; the file is incomplete: save it again"
            .formatted(quote(name), why, AdapterConfig.FILE));
  }

  /** A tensor that nothing in the config asks for: says why, as far as its name tells. */
  private AdapterException leftOver(TensorInfo tensor) {
    String name = quote(tensor.name());
    if (!tensor.name().startsWith(PREFIX)) {
      return weights(
          "%s: expected names that begin with %s, as PEFT writes them; it would be ignored"
              .formatted(name, PREFIX));
    }
    Matcher matcher = MODULE.matcher(tensor.name().substring(PREFIX.length()));
    Module module = matcher.matches() ? base.modules().find(matcher.group(1)) : null;
    if (module == null) {
      return new AdapterException(
          Reason.MISMATCH,
          "%s: %s: expected a tensor of one of this base's %d layers or of its ends, got one that"
                  .formatted(Adapter.WEIGHTS, name, base.config().layers())
              + " belongs to nothing here; was it made for another base?");
    }
    if (plans.containsKey(module) || targets.replaced().contains(module)) {
      return weights(
          "%s: expected the tensors that %s asks for of %s, got one more; it would be ignored:"
                  .formatted(name, AdapterConfig.FILE, module.path())
              + " correct use_dora, lora_bias, bias or modules_to_save");
    }
    return weights(
        "%s: %s is not among what %s selects; it would be ignored: add it to target_modules or"
                .formatted(name, module.path(), AdapterConfig.FILE)
            + " remove the tensor");
  }

  private void checkCopy(SafetensorsFile file, TensorInfo tensor, Slot slot)
      throws AdapterException {
    if (!base.sameWeights(slot.module().id(), matrix(file, tensor))) {
      throw new AdapterException(
          Reason.MISMATCH,
          "%s: %s: expected a copy of the base's %s, got other values; serve the adapter over the"
                  .formatted(Adapter.WEIGHTS, quote(tensor.name()), slot.module().path())
              + " base it was trained on, or list the module in modules_to_save if it was trained");
    }
  }

  private void gather(SafetensorsFile file, TensorInfo tensor, Slot slot, Parts parts)
      throws AdapterException {
    TensorScan scan = TensorScan.of(tensor.dtype(), file.data(tensor));
    if (scan.notFinite() >= 0) {
      throw weights(
          "%s: expected finite values, got NaN or infinity at index %d; training diverged: use an"
                  .formatted(quote(tensor.name()), scan.notFinite())
              + " earlier checkpoint");
    }
    Module module = slot.module();
    switch (slot.role()) {
      case A -> {
        parts.a = matrix(file, tensor);
        parts.zeroFactor |= scan.zero();
      }
      case B -> {
        parts.b = matrix(file, tensor);
        parts.zeroFactor |= scan.zero();
      }
      case MAGNITUDE -> parts.magnitude = floats(file, tensor);
      case LORA_BIAS -> {
        parts.loraBias = floats(file, tensor);
        parts.effect |= !scan.zero();
      }
      case BIAS -> {
        parts.bias = floats(file, tensor);
        parts.effect |= !Arrays.equals(parts.bias, base.hostBias(module.id()));
      }
      case WEIGHT -> {
        parts.weight = matrix(file, tensor);
        parts.effect |=
            module.kind() == Module.Kind.NORM
                ? !Arrays.equals(floats(file, tensor), base.hostNorm(module.id()))
                : !base.sameWeights(module.id(), parts.weight);
      }
      case COPY -> throw new AssertionError(tensor);
    }
  }

  private static DenseMatrix matrix(SafetensorsFile file, TensorInfo tensor) {
    int rows = tensor.shape().size() == 1 ? 1 : Math.toIntExact(tensor.shape().getFirst());
    int cols = Math.toIntExact(tensor.shape().getLast());
    return new DenseMatrix(tensor.dtype(), rows, cols, file.data(tensor));
  }

  private static float[] floats(SafetensorsFile file, TensorInfo tensor) throws AdapterException {
    try {
      return file.floats(tensor);
    } catch (SafetensorsException e) {
      throw new AdapterException(Reason.INVALID, message(e), e);
    }
  }

  private void checkEffect(Map<Module, Parts> parts) throws AdapterException {
    List<String> still = new ArrayList<>();
    boolean effect = false;
    for (Map.Entry<Module, Parts> entry : parts.entrySet()) {
      Plan plan = plans.get(entry.getKey());
      boolean still0 = plan != null && (entry.getValue().zeroFactor || plan.scale() == 0);
      if (still0) {
        still.add(entry.getKey().path());
      }
      effect |= entry.getValue().effect || (plan != null && !still0);
    }
    if (!effect && config.dora()) {
      warnings.add("B·A is zero in every module; only DoRA's magnitudes can have an effect");
    } else if (!effect) {
      String what = "the delta is zero in every module: it answers exactly as the base does";
      if (options.refuseZeroDelta()) {
        throw weights(what + "; expected an effect: check that training ran and was saved");
      }
      warnings.add(what);
    } else if (!still.isEmpty()) {
      warnings.add(
          "B·A is zero in %d of %d modules, first %s"
              .formatted(still.size(), plans.size(), still.getFirst()));
    }
  }
}
