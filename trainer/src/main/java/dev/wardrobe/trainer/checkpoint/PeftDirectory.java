package dev.wardrobe.trainer.checkpoint;

import static java.nio.ByteOrder.LITTLE_ENDIAN;

import com.fasterxml.jackson.core.json.JsonWriteFeature;
import com.fasterxml.jackson.core.util.DefaultIndenter;
import com.fasterxml.jackson.core.util.DefaultPrettyPrinter;
import com.fasterxml.jackson.core.util.Separators;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.SerializationFeature;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.adapter.Adapter;
import dev.wardrobe.compute.Backend;
import dev.wardrobe.safetensors.DType;
import dev.wardrobe.safetensors.SafetensorsWriter;
import dev.wardrobe.safetensors.TensorSpec;
import dev.wardrobe.trainer.backward.Parameter;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/** An adapter as PEFT 0.21 writes it: {@code adapter_config.json} and its weights. */
public final class PeftDirectory {
  /** About so many floats are copied at a time. */
  private static final int CHUNK = 1 << 18;

  /** As Python's {@code json.dumps(indent=2, sort_keys=True)} prints. */
  private static final JsonMapper MAPPER =
      JsonMapper.builder()
          .enable(SerializationFeature.INDENT_OUTPUT)
          .enable(JsonWriteFeature.ESCAPE_NON_ASCII)
          .defaultPrettyPrinter(printer())
          .build();

  private PeftDirectory() {}

  private static DefaultPrettyPrinter printer() {
    DefaultIndenter lines = new DefaultIndenter("  ", "\n");
    return new DefaultPrettyPrinter(
            Separators.createDefaultInstance()
                .withObjectFieldValueSpacing(Separators.Spacing.AFTER)
                .withObjectEmptySeparator("")
                .withArrayEmptySeparator(""))
        .withObjectIndenter(lines)
        .withArrayIndenter(lines);
  }

  /**
   * The whole configuration: what is known of an adapter, and PEFT's presets for all else.
   *
   * @param known fields that decide what it does
   * @param base the base's name
   */
  public static ObjectNode config(ObjectNode known, String base) {
    ObjectNode config = presets();
    config.setAll(known);
    config.put("base_model_name_or_path", base);
    config.put("inference_mode", true);
    Map<String, JsonNode> byName = new TreeMap<>();
    config.properties().forEach(entry -> byName.put(entry.getKey(), entry.getValue()));
    ObjectNode sorted = JsonNodeFactory.instance.objectNode();
    sorted.setAll(byName);
    return sorted;
  }

  /** PEFT 0.21's {@code LoraConfig}, as it is when nothing is said. */
  private static ObjectNode presets() {
    ObjectNode json = JsonNodeFactory.instance.objectNode();
    for (String none :
        List.of(
            "alora_invocation_tokens",
            "arrow_config",
            "auto_mapping",
            "corda_config",
            "eva_config",
            "exclude_modules",
            "kasa_config",
            "layer_replication",
            "layers_pattern",
            "layers_to_transform",
            "lora_ga_config",
            "megatron_config",
            "modules_to_save",
            "monteclora_config",
            "revision",
            "target_parameters",
            "trainable_token_indices",
            "use_bdlora",
            "velora_config")) {
      json.putNull(none);
    }
    json.putObject("alpha_pattern");
    json.put("bias", "none");
    json.put("ensure_weight_tying", false);
    json.put("fan_in_fan_out", false);
    json.put("init_lora_weights", true);
    json.putObject("loftq_config");
    json.put("lora_alpha", 8);
    json.put("lora_bias", false);
    json.put("lora_dropout", 0.0);
    json.put("megatron_core", "megatron.core");
    json.put("peft_version", "0.21.2");
    json.put("qalora_group_size", 16);
    json.put("r", 8);
    json.putObject("rank_pattern");
    json.put("use_dora", false);
    json.put("use_qalora", false);
    json.put("use_rslora", false);
    return json;
  }

  /**
   * Writes an adapter into a folder. One that is there is replaced, and at no time is a
   * configuration beside weights that are not its own.
   *
   * @param config from {@link #config}
   * @param fingerprint of the base, or ""
   * @throws IOException if the disk refuses
   */
  public static void write(
      Path folder,
      ObjectNode config,
      String fingerprint,
      List<Parameter> parameters,
      Backend backend)
      throws IOException {
    Files.deleteIfExists(folder.resolve(Adapter.CONFIG));
    weights(folder.resolve(Adapter.WEIGHTS), fingerprint, parameters, backend);
    Disk.text(folder.resolve(Adapter.CONFIG), MAPPER.writeValueAsString(config));
    Disk.flush(folder);
  }

  /** Copies an adapter from one folder to another, replacing as {@link #write} does. */
  public static void copy(Path from, Path to) throws IOException {
    Files.deleteIfExists(to.resolve(Adapter.CONFIG));
    for (String name : List.of(Adapter.WEIGHTS, Adapter.CONFIG)) {
      Path unfinished = to.resolve(Disk.UNFINISHED + name);
      Files.deleteIfExists(unfinished);
      Files.copy(from.resolve(name), unfinished);
      Disk.flush(unfinished);
      Files.move(
          unfinished,
          to.resolve(name),
          StandardCopyOption.ATOMIC_MOVE,
          StandardCopyOption.REPLACE_EXISTING);
    }
    Disk.flush(to);
  }

  private static void weights(
      Path file, String fingerprint, List<Parameter> parameters, Backend backend)
      throws IOException {
    List<TensorSpec> specs = new ArrayList<>();
    for (Parameter parameter : parameters) {
      specs.add(new TensorSpec(parameter.name(), DType.F32, shape(parameter)));
    }
    Map<String, String> metadata = new HashMap<>(Map.of("format", "pt"));
    if (!fingerprint.isEmpty()) {
      metadata.put(Adapter.BASE_FINGERPRINT, fingerprint);
    }
    try (SafetensorsWriter writer = SafetensorsWriter.create(file, specs, metadata)) {
      for (Parameter parameter : parameters) {
        int width = parameter.value().width();
        int rows = parameter.value().rows();
        int together = Math.max(1, CHUNK / width);
        for (int row = 0; row < rows; row += together) {
          float[] values = backend.read(parameter.value(), row, Math.min(together, rows - row));
          ByteBuffer bytes = ByteBuffer.allocate(4 * values.length).order(LITTLE_ENDIAN);
          bytes.asFloatBuffer().put(values);
          writer.write(parameter.name(), MemorySegment.ofBuffer(bytes));
        }
      }
      writer.commit();
    }
  }

  /** A magnitude is a vector to PEFT. */
  private static List<Long> shape(Parameter parameter) {
    long rows = parameter.value().rows();
    long width = parameter.value().width();
    return parameter.role() == Parameter.Role.MAGNITUDE ? List.of(width) : List.of(rows, width);
  }
}
