package dev.wardrobe.trainer.optim;

import dev.wardrobe.compute.UpdateRule;
import dev.wardrobe.safetensors.DType;
import dev.wardrobe.safetensors.SafetensorsFile;
import dev.wardrobe.safetensors.SafetensorsWriter;
import dev.wardrobe.safetensors.TensorInfo;
import dev.wardrobe.safetensors.TensorSpec;
import dev.wardrobe.trainer.backward.Parameter;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * An optimizer's state in a safetensors file: for each parameter, under its name, the records of
 * its blocks as bytes {@code (blocks, bytes of one)}, so that pages of any size can take them.
 */
final class StateFile {
  private static final String FORMAT = "wardrobe-optimizer-1";
  private static final String DIGEST = "sha256";
  private static final int PIECE = 1 << 20;

  private final List<Parameter> parameters;
  private final OptimizerOptions options;
  private final StateLayout layout;

  /** What a file held besides the state. */
  record Loaded(long steps, String digest) {}

  StateFile(List<Parameter> parameters, OptimizerOptions options, StateLayout layout) {
    this.parameters = parameters;
    this.options = options;
    this.layout = layout;
  }

  String save(Path file, long steps, Pager pager) throws IOException {
    List<TensorSpec> tensors = new ArrayList<>(specs().values());
    tensors.add(new TensorSpec(DIGEST, DType.U8, List.of(32L)));
    MessageDigest digest = digest(steps);
    try (SafetensorsWriter writer =
        SafetensorsWriter.create(file, tensors, metadata(Long.toString(steps)))) {
      pager.look(
          (page, bytes) -> {
            for (StateLayout.Part part : layout.parts(page)) {
              MemorySegment records = bytes.asSlice(part.offset(), part.bytes());
              digest.update(records.asByteBuffer());
              writer.write(parameters.get(part.parameter()).name(), records);
            }
          });
      byte[] sum = digest.digest();
      writer.write(DIGEST, MemorySegment.ofArray(sum));
      writer.commit();
      return HexFormat.of().formatHex(sum);
    }
  }

  Loaded load(Path file, Pager pager) throws IOException {
    try (SafetensorsFile saved = SafetensorsFile.open(file)) {
      Map<String, String> metadata = saved.metadata();
      String steps = metadata.getOrDefault("steps", "");
      check(file, "state", metadata(steps), metadata);
      if (!steps.matches("[0-9]{1,18}")) {
        throw new OptimizerException(
            "%s: steps: expected a number, got '%s'".formatted(file, steps));
      }
      Map<String, TensorSpec> expected = specs();
      for (TensorInfo tensor : saved.tensors().values()) {
        if (!expected.containsKey(tensor.name()) && !tensor.name().equals(DIGEST)) {
          throw new OptimizerException(
              "%s: state of '%s', which is not trained here".formatted(file, tensor.name()));
        }
      }
      List<MemorySegment> states = new ArrayList<>();
      MessageDigest digest = digest(Long.parseLong(steps));
      for (Parameter parameter : parameters) {
        TensorSpec spec = expected.get(parameter.name());
        MemorySegment bytes = spec == null ? MemorySegment.NULL : data(file, saved, spec);
        states.add(bytes);
        for (long at = 0; at < bytes.byteSize(); at += PIECE) {
          digest.update(bytes.asSlice(at, Math.min(PIECE, bytes.byteSize() - at)).asByteBuffer());
        }
      }
      byte[] sum = digest.digest();
      MemorySegment stored =
          data(file, saved, new TensorSpec(DIGEST, DType.U8, List.of((long) sum.length)));
      if (stored.mismatch(MemorySegment.ofArray(sum)) >= 0) {
        throw new OptimizerException(
            "%s: damaged: its digest does not match; use another checkpoint".formatted(file));
      }
      pager.fill(
          (page, bytes) -> {
            for (StateLayout.Part part : layout.parts(page)) {
              UpdateRule rule = rule(parameters.get(part.parameter()));
              long from = rule.stateBytes(part.from());
              MemorySegment.copy(
                  states.get(part.parameter()), from, bytes, part.offset(), part.bytes());
            }
          });
      return new Loaded(Long.parseLong(steps), HexFormat.of().formatHex(sum));
    }
  }

  private static MemorySegment data(Path file, SafetensorsFile saved, TensorSpec spec)
      throws IOException {
    TensorInfo tensor = saved.require(spec.name());
    check(
        file,
        "'" + spec.name() + "'",
        spec.dtype() + " " + spec.shape(),
        tensor.dtype() + " " + tensor.shape());
    return saved.data(tensor);
  }

  private static void check(Path file, String what, Object expected, Object got)
      throws OptimizerException {
    if (!expected.equals(got)) {
      throw new OptimizerException(
          "%s: %s: expected %s, got %s; resume with the options the run began with"
              .formatted(file, what, expected, got));
    }
  }

  private UpdateRule rule(Parameter parameter) {
    return options.at(1, 0, parameter);
  }

  /** The tensors of parameters that have state. */
  private Map<String, TensorSpec> specs() {
    Map<String, TensorSpec> specs = new HashMap<>();
    for (Parameter parameter : parameters) {
      long record = rule(parameter).blockBytes();
      if (record > 0) {
        long blocks = Math.ceilDiv(parameter.size(), (long) UpdateRule.BLOCK);
        String name = parameter.name();
        specs.put(name, new TensorSpec(name, DType.U8, List.of(blocks, record)));
      }
    }
    return specs;
  }

  private Map<String, String> metadata(String steps) {
    return Map.of(
        "format", FORMAT,
        "rule", options.rule().name().toLowerCase(Locale.ROOT),
        "steps", steps);
  }

  /** A digest that has taken in all but the state. */
  private MessageDigest digest(long steps) {
    try {
      MessageDigest digest = MessageDigest.getInstance("SHA-256");
      digest.update((FORMAT + " " + options.rule() + " " + steps).getBytes(StandardCharsets.UTF_8));
      for (Parameter parameter : parameters) {
        digest.update(("\n" + parameter.name()).getBytes(StandardCharsets.UTF_8));
      }
      return digest;
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException("every Java has SHA-256", e);
    }
  }
}
