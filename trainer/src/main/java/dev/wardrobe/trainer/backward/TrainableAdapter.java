package dev.wardrobe.trainer.backward;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.adapter.AdaptedModule;
import dev.wardrobe.adapter.Adapter;
import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.adapter.AdapterException.Reason;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.Delta;
import dev.wardrobe.compute.DenseMatrix;
import dev.wardrobe.model.Model;
import dev.wardrobe.model.Module;
import dev.wardrobe.trainer.data.SplitMix64;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.SortedSet;
import java.util.TreeSet;
import org.jspecify.annotations.Nullable;

/**
 * A LoRA adapter in the making: its parameters in float32 in a backend's memory, with their
 * gradients. What PEFT's configuration says decides which modules it has, at which rank and scale.
 */
public final class TrainableAdapter implements AutoCloseable {
  private static final String PREFIX = "base_model.model.";
  private static final JsonMapper JSON = new JsonMapper();

  private final ObjectNode config;
  private final Backend backend;
  private final List<Parameter> parameters = new ArrayList<>();
  private final Map<Integer, AdaptedLinear.Factors> factors = new HashMap<>();

  private TrainableAdapter(ObjectNode config, Backend backend) {
    this.config = config;
    this.backend = backend;
  }

  /**
   * A new adapter.
   *
   * @param seed of A's random numbers; a module's depend on it and on the module's number alone
   * @throws AdapterException if the options choose nothing of this base, or more than its
   *     projections
   */
  public static TrainableAdapter create(
      LoraOptions options, long seed, Model model, Backend backend) throws AdapterException {
    TrainableAdapter adapter = new TrainableAdapter(options.config(), backend);
    return adapter.fill(
        model, (module, part) -> adapter.initial(options.init(), seed, module, part, model));
  }

  /**
   * An adapter to go on from.
   *
   * @param directory PEFT's
   * @throws AdapterException if it is damaged, does not fit the base, or has more than A, B and
   *     magnitudes of projections
   * @throws IOException if it cannot be read
   */
  public static TrainableAdapter read(Path directory, Model model, Backend backend)
      throws AdapterException, IOException {
    try (Adapter stored = Adapter.read(directory, model, AdapterOptions.DEFAULT)) {
      ObjectNode config = config(Files.readAllBytes(directory.resolve("adapter_config.json")));
      JsonNode bias = config.path("bias");
      if (config.path("lora_bias").asBoolean() || !bias.asText("none").equals("none")) {
        throw new AdapterException(
            Reason.INVALID,
            "adapter_config.json: expected bias none and no lora_bias, got bias %s, lora_bias %s;"
                    .formatted(bias, config.path("lora_bias"))
                + " biases are served, but not trained");
      }
      TrainableAdapter adapter = new TrainableAdapter(config, backend);
      return adapter.fill(model, (module, part) -> stored(stored.deltas(), module, part));
    }
  }

  private static ObjectNode config(byte[] bytes) throws AdapterException {
    try {
      if (JSON.readTree(bytes) instanceof ObjectNode object) {
        return object;
      }
    } catch (JsonProcessingException e) {
      throw new AdapterException(Reason.INVALID, "adapter_config.json is not JSON", e);
    } catch (IOException e) {
      throw new AssertionError("bytes in memory", e);
    }
    throw new AdapterException(Reason.INVALID, "adapter_config.json is no object");
  }

  /** Where the first values of a parameter come from. */
  private interface Source {
    float[] values(AdaptedModule module, Parameter.Role role);
  }

  private TrainableAdapter fill(Model model, Source source) throws AdapterException {
    boolean complete = false;
    try {
      byte[] bytes = config.toString().getBytes(StandardCharsets.UTF_8);
      List<AdaptedModule> modules = AdaptedModule.of(bytes, model.modules());
      boolean dora = config.path("use_dora").asBoolean();
      for (AdaptedModule adapted : modules) {
        Module module = adapted.module();
        int rank = adapted.rank();
        String path = PREFIX + module.path();
        Parameter a =
            parameter(
                path + ".lora_A.weight",
                Parameter.Role.A,
                rank,
                module.in(),
                source.values(adapted, Parameter.Role.A));
        Parameter b =
            parameter(
                path + ".lora_B.weight",
                Parameter.Role.B,
                module.out(),
                rank,
                source.values(adapted, Parameter.Role.B));
        factors.put(module.id(), new AdaptedLinear.Factors(a, b, null, adapted.scale()));
        if (dora) {
          Parameter magnitude =
              parameter(
                  path + ".lora_magnitude_vector",
                  Parameter.Role.MAGNITUDE,
                  1,
                  module.out(),
                  source.values(adapted, Parameter.Role.MAGNITUDE));
          factors.put(module.id(), new AdaptedLinear.Factors(a, b, magnitude, adapted.scale()));
        }
      }
      nameTargets(modules, model);
      complete = true;
      return this;
    } finally {
      if (!complete) {
        close();
      }
    }
  }

  private Parameter parameter(
      String name, Parameter.Role role, int rows, int width, float[] values) {
    Buffer value = backend.buffer(rows, width);
    Buffer gradient;
    try {
      backend.write(value, 0, values);
      gradient = backend.buffer(rows, width);
    } catch (RuntimeException | Error e) {
      value.close();
      throw e;
    }
    Parameter parameter = new Parameter(name, role, value, gradient);
    parameters.add(parameter);
    return parameter;
  }

  private float[] initial(
      LoraOptions.Init init, long seed, AdaptedModule adapted, Parameter.Role role, Model model) {
    Module module = adapted.module();
    int rank = adapted.rank();
    // Every tensor has a sequence of its own, so that none depends on which others there are.
    SplitMix64 random =
        new SplitMix64(
            SplitMix64.mix(
                seed ^ SplitMix64.mix(2L * module.id() + (role == Parameter.Role.B ? 1 : 0))));
    return switch (role) {
      case A -> {
        float[] values = new float[Math.multiplyExact(rank, module.in())];
        double bound = 1 / StrictMath.sqrt(module.in());
        for (int i = 0; i < values.length; i++) {
          values[i] =
              init == LoraOptions.Init.GAUSSIAN
                  ? (float) (random.gaussian() / rank)
                  : (float) (bound * (2 * random.uniform() - 1));
        }
        yield values;
      }
      case B -> {
        float[] values = new float[Math.multiplyExact(rank, module.out())];
        if (init == LoraOptions.Init.RANDOM) {
          double bound = 1 / StrictMath.sqrt(rank);
          for (int i = 0; i < values.length; i++) {
            values[i] = (float) (bound * (2 * random.uniform() - 1));
          }
        }
        yield values;
      }
      case MAGNITUDE -> norms(adapted, model);
    };
  }

  /** The norms of the adapted weight's rows, at which DoRA begins. */
  private float[] norms(AdaptedModule adapted, Model model) {
    Module module = adapted.module();
    Parameter b = parameters.getLast();
    Parameter a = parameters.get(parameters.size() - 2);
    try (Buffer norms = backend.buffer(1, module.out())) {
      backend
          .gradients()
          .rowNorms(model.matrix(module.id()), adapted.scale(), a.value(), b.value(), norms);
      return backend.read(norms, 0, 1);
    }
  }

  private static float[] stored(
      Map<Integer, Delta> deltas, AdaptedModule adapted, Parameter.Role role) {
    Delta delta = deltas.get(adapted.module().id());
    Delta.LowRank lowRank = delta == null ? null : delta.lowRank();
    float[] magnitude = delta == null ? null : delta.magnitude();
    if (lowRank == null || (role == Parameter.Role.MAGNITUDE && magnitude == null)) {
      throw new IllegalStateException("nothing for " + adapted.module().path());
    }
    return switch (role) {
      case A -> floats(lowRank.a());
      case B -> floats(lowRank.b());
      case MAGNITUDE -> magnitude == null ? new float[0] : magnitude.clone();
    };
  }

  private static float[] floats(DenseMatrix matrix) {
    float[] values = new float[Math.multiplyExact(matrix.rows(), matrix.cols())];
    MemorySegment data = matrix.data();
    ValueLayout.OfShort half = ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
    ValueLayout.OfFloat single =
        ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
    for (int i = 0; i < values.length; i++) {
      values[i] =
          switch (matrix.dtype()) {
            case BF16 -> Float.intBitsToFloat(data.get(half, 2L * i) << 16);
            case F16 -> Float.float16ToFloat(data.get(half, 2L * i));
            default -> data.get(single, 4L * i);
          };
    }
    return values;
  }

  /**
   * Names what is adapted, where the options said all-linear: by the ends of the paths if they
   * select the same, as servers expect it.
   */
  private void nameTargets(List<AdaptedModule> adapted, Model model) {
    if (!config.path("target_modules").asText().equals(LoraOptions.ALL_LINEAR)) {
      return;
    }
    SortedSet<String> ends = new TreeSet<>();
    SortedSet<String> paths = new TreeSet<>();
    for (AdaptedModule each : adapted) {
      String path = each.module().path();
      paths.add(path);
      ends.add(end(path));
    }
    long selected =
        model.modules().all().stream().filter(m -> ends.contains(end(m.path()))).count();
    (selected == adapted.size() ? ends : paths).forEach(config.putArray("target_modules")::add);
  }

  private static String end(String path) {
    return path.substring(path.lastIndexOf('.') + 1);
  }

  /** Everything that is trained, in the base's order: A, B, then the magnitude of each module. */
  public List<Parameter> parameters() {
    return Collections.unmodifiableList(parameters);
  }

  /** How many numbers are trained. */
  public long size() {
    return parameters.stream().mapToLong(Parameter::size).sum();
  }

  /** The PEFT configuration that describes it, a copy; without the base's name and fingerprint. */
  public ObjectNode config() {
    return config.deepCopy();
  }

  double dropout() {
    return config.path("lora_dropout").asDouble();
  }

  /** What is trained of a module, or null. */
  AdaptedLinear.@Nullable Factors factors(int module) {
    return factors.get(module);
  }

  @Override
  public void close() {
    for (Parameter parameter : parameters) {
      parameter.value().close();
      parameter.gradient().close();
    }
    parameters.clear();
  }
}
