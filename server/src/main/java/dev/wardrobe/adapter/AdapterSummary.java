package dev.wardrobe.adapter;

import dev.wardrobe.adapter.AdapterException.Reason;
import dev.wardrobe.safetensors.SafetensorsException;
import dev.wardrobe.safetensors.SafetensorsFile;
import dev.wardrobe.safetensors.TensorInfo;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.nio.file.Path;
import java.util.List;
import java.util.TreeSet;
import org.jspecify.annotations.Nullable;

/**
 * What an adapter's directory holds, told without a base. It says nothing of whether the adapter
 * fits one.
 *
 * @param digest the adapter's identity
 * @param rank {@code r}
 * @param alpha {@code lora_alpha}
 * @param targets {@code target_modules}, as a person reads them
 * @param saved {@code modules_to_save}
 * @param base {@code base_model_name_or_path}, or null
 * @param fingerprint of the base that the config says it was made for, or null
 * @param ranks of the modules that have an A, as the weights have them
 * @param modules how many modules have an A
 * @param tensors how many tensors the weights have
 * @param parameters their elements
 * @param types their element types
 * @param configBytes size of {@code adapter_config.json}
 * @param weightBytes size of {@code adapter_model.safetensors}
 * @param warnings what is odd about its config, but not wrong
 */
public record AdapterSummary(
    String digest,
    Adapter.Kind kind,
    int rank,
    double alpha,
    String targets,
    List<String> saved,
    @Nullable String base,
    @Nullable String fingerprint,
    List<Long> ranks,
    int modules,
    int tensors,
    long parameters,
    List<String> types,
    long configBytes,
    long weightBytes,
    List<String> warnings) {

  /**
   * Reads the adapter in {@code directory}, which the caller vouches for.
   *
   * @throws AdapterException if a file is missing, damaged or too large, or asks for what is not
   *     supported
   */
  public static AdapterSummary read(Path directory, AdapterOptions options)
      throws AdapterException {
    return read(Adapter.trusted(directory), options);
  }

  static AdapterSummary read(AdapterFiles files, AdapterOptions options) throws AdapterException {
    try (Arena arena = Arena.ofConfined()) {
      AdapterFiles.Contents configBytes;
      try (AdapterFiles.OpenFile file = files.open(AdapterConfig.FILE)) {
        configBytes = file.read(AdapterConfig.LARGEST_FILE, arena);
      }
      AdapterConfig config =
          AdapterConfig.parse(configBytes.bytes().toArray(ValueLayout.JAVA_BYTE), options);
      AdapterFiles.Contents weights;
      try (AdapterFiles.OpenFile file = files.open(Adapter.WEIGHTS)) {
        weights = file.read(options.maxFileBytes(), arena);
      }
      return of(config, configBytes, weights);
    } catch (SafetensorsException e) {
      throw new AdapterException(
          Reason.INVALID, e.getMessage() + "; the file is damaged: save it again", e);
    }
  }

  private static AdapterSummary of(
      AdapterConfig config, AdapterFiles.Contents configBytes, AdapterFiles.Contents weights)
      throws SafetensorsException {
    TreeSet<Long> ranks = new TreeSet<>();
    TreeSet<String> types = new TreeSet<>();
    int modules = 0;
    long parameters = 0;
    SafetensorsFile file = SafetensorsFile.of(weights.bytes(), Adapter.WEIGHTS);
    for (TensorInfo tensor : file.tensors().values()) {
      types.add(tensor.dtype().name());
      parameters += tensor.elements();
      String name = tensor.name();
      boolean isA = name.endsWith(".lora_A.weight") || name.endsWith(".lora_embedding_A");
      if (isA && !tensor.shape().isEmpty()) {
        modules++;
        ranks.add(tensor.shape().getFirst());
      }
    }
    return new AdapterSummary(
        new Manifest(configBytes.blob(), weights.blob()).digest(),
        Adapter.Kind.of(config),
        config.rank(),
        config.alpha(),
        targets(config.targets()),
        List.copyOf(config.targets().saved().keySet()),
        config.base(),
        config.fingerprint(),
        List.copyOf(ranks),
        modules,
        file.tensors().size(),
        parameters,
        List.copyOf(types),
        configBytes.bytes().byteSize(),
        weights.bytes().byteSize(),
        config.warnings());
  }

  private static String targets(Targets targets) {
    String selected =
        switch (targets.targets()) {
          case Targets.Names names -> String.join(", ", new TreeSet<>(names.names()));
          case Targets.Pattern pattern -> pattern.text();
          case Targets.AllLinear all -> "all-linear";
        };
    return targets.layers() == null ? selected : selected + " in layers " + targets.layers();
  }
}
