package dev.wardrobe.quant;

import dev.wardrobe.safetensors.Checkpoint;
import dev.wardrobe.safetensors.DType;
import dev.wardrobe.safetensors.TensorInfo;
import dev.wardrobe.safetensors.TensorSpec;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.stream.LongStream;
import org.jspecify.annotations.Nullable;

/**
 * The form in which bitsandbytes keeps a 4-bit weight {@code X.weight} in a checkpoint: a few
 * tensors whose names start with the weight's.
 */
public final class BitsAndBytes {
  /*
   *   X.weight                                   packed codes, U8 [(n + 1) / 2, 1]; or the same
   *                                              bytes as BF16, F16 or F32 ("quant storage")
   *   X.weight.absmax                            F32 [blocks], or U8 [blocks] if doubly quantized
   *   X.weight.quant_map                         F32 [16]
   *   X.weight.nested_absmax                     F32 [blocks / 256, up]   if doubly quantized
   *   X.weight.nested_quant_map                  F32 [256]                if doubly quantized
   *   X.weight.quant_state.bitsandbytes__nf4     U8: JSON, see QuantState (or __fp4)
   */

  private static final String ABSMAX = ".absmax";
  private static final String MAP = ".quant_map";
  private static final String NESTED_ABSMAX = ".nested_absmax";
  private static final String NESTED_MAP = ".nested_quant_map";
  private static final String STATE = ".quant_state.bitsandbytes__";
  private static final Set<DType> STORAGE = Set.of(DType.U8, DType.BF16, DType.F16, DType.F32);

  private BitsAndBytes() {}

  /** Whether {@code checkpoint} holds {@code weightName} in this form, of whatever type. */
  public static boolean isQuantized(Checkpoint checkpoint, String weightName) {
    return !states(checkpoint, weightName).isEmpty();
  }

  /** The names of the tensors that make up {@code weightName}, the weight's own among them. */
  public static List<String> tensorNames(Checkpoint checkpoint, String weightName) {
    List<String> names = new ArrayList<>();
    for (String suffix : List.of("", ABSMAX, MAP, NESTED_ABSMAX, NESTED_MAP)) {
      if (checkpoint.find(weightName + suffix) != null) {
        names.add(weightName + suffix);
      }
    }
    names.addAll(states(checkpoint, weightName));
    return names;
  }

  /** What PyTorch, and the stored state, call a type from which weights are quantized. */
  public static String sourceDtype(DType dtype) {
    return switch (dtype) {
      case F32 -> "float32";
      case F16 -> "float16";
      case BF16 -> "bfloat16";
      default -> throw new IllegalArgumentException(dtype + " is not quantized from");
    };
  }

  private static List<String> states(Checkpoint checkpoint, String weightName) {
    String prefix = weightName + STATE;
    return checkpoint.tensors().tailMap(prefix).keySet().stream()
        .takeWhile(name -> name.startsWith(prefix))
        .toList();
  }

  /**
   * Reads a weight over the checkpoint's memory, its codes, statistics and tables as stored.
   *
   * @param rows output features that the model expects
   * @param cols input features that the model expects
   * @throws QuantException if a part is missing, of another type or size, or unknown
   */
  public static QuantizedMatrix read(Checkpoint checkpoint, String weightName, int rows, int cols)
      throws QuantException {
    return new Reading(checkpoint, weightName).read(rows, cols);
  }

  /**
   * The tensors of a weight, in no particular order. Their data is the matrix's own where it can
   * be.
   */
  public static List<TensorEntry> write(String weightName, QuantizedMatrix matrix) {
    List<TensorEntry> tensors = new ArrayList<>();
    long bytes = matrix.packed().byteSize();
    tensors.add(entry(weightName, DType.U8, matrix.packed(), bytes, 1));
    tensors.add(entry(weightName + MAP, DType.F32, littleEndian(matrix.codebook()), 16));
    QuantState.Nested nested = null;
    if (matrix.doubleQuant()) {
      float[] nestedAbsmax = matrix.nestedAbsmax();
      tensors.add(entry(weightName + ABSMAX, DType.U8, matrix.absmaxCodes(), matrix.blocks()));
      tensors.add(
          entry(
              weightName + NESTED_ABSMAX,
              DType.F32,
              littleEndian(nestedAbsmax),
              nestedAbsmax.length));
      tensors.add(entry(weightName + NESTED_MAP, DType.F32, littleEndian(matrix.nestedMap()), 256));
      nested = new QuantState.Nested(matrix.nestedBlockSize(), "float32", matrix.nestedOffset());
    } else {
      tensors.add(entry(weightName + ABSMAX, DType.F32, matrix.absmaxPlain(), matrix.blocks()));
    }
    QuantState state =
        new QuantState(
            matrix.type().id(),
            matrix.blockSize(),
            matrix.sourceDtype(),
            List.of((long) matrix.rows(), (long) matrix.cols()),
            nested);
    byte[] json = state.toJson().getBytes(StandardCharsets.US_ASCII);
    tensors.add(
        entry(
            weightName + STATE + matrix.type().id(),
            DType.U8,
            MemorySegment.ofArray(json),
            json.length));
    return tensors;
  }

  private static TensorEntry entry(String name, DType dtype, MemorySegment data, long... shape) {
    return new TensorEntry(
        new TensorSpec(name, dtype, LongStream.of(shape).boxed().toList()), data);
  }

  private static MemorySegment littleEndian(float[] values) {
    MemorySegment bytes = MemorySegment.ofArray(new byte[4 * values.length]);
    DType.F32.narrow(values, 0, values.length, bytes, 0);
    return bytes;
  }

  /** One weight being read. */
  private static final class Reading {
    private final Checkpoint checkpoint;
    private final String weightName;

    Reading(Checkpoint checkpoint, String weightName) {
      this.checkpoint = checkpoint;
      this.weightName = weightName;
    }

    QuantizedMatrix read(int rows, int cols) throws QuantException {
      String stateName = stateName();
      QuantType type = type(stateName);
      QuantState state = state(stateName);
      check(state, type, rows, cols);

      long elements = (long) rows * cols;
      int blockSize = (int) state.blockSize();
      long blocks = (elements + blockSize - 1) / blockSize;
      TensorInfo weight = find("");
      if (!STORAGE.contains(weight.dtype())) {
        throw wrong("", "packed codes as U8, BF16, F16 or F32", weight);
      }
      if (weight.byteSize() != (elements + 1) / 2) {
        throw wrong("", (elements + 1) / 2 + " bytes of codes", weight);
      }
      float[] codebook = floats(MAP, 16);
      QuantizedMatrix.Nesting nesting = nesting(state.nested(), blocks);
      TensorInfo absmax = find(ABSMAX);
      DType absmaxType = nesting == null ? DType.F32 : DType.U8;
      if (absmax.dtype() != absmaxType || absmax.elements() != blocks) {
        throw wrong(ABSMAX, blocks + " elements of " + absmaxType, absmax);
      }
      MemorySegment scales = checkpoint.data(absmax);
      if (nesting == null) {
        checkFinite(scales, blocks);
      }
      return new QuantizedMatrix(
          type,
          rows,
          cols,
          blockSize,
          state.dtype(),
          checkpoint.data(weight),
          scales,
          type.matches(codebook) ? type.shared() : codebook,
          nesting);
    }

    private String stateName() throws QuantException {
      List<String> states = states(checkpoint, weightName);
      if (states.size() != 1) {
        throw new QuantException(
            weightName
                + ": expected one tensor "
                + weightName
                + STATE
                + "nf4 or …fp4, found "
                + (states.isEmpty() ? "none" : states));
      }
      return states.getFirst();
    }

    private QuantType type(String stateName) throws QuantException {
      String id = stateName.substring((weightName + STATE).length());
      for (QuantType type : QuantType.values()) {
        if (type.id().equals(id)) {
          return type;
        }
      }
      throw new QuantException(
          weightName + ": quantization type '" + id + "' is not supported; nf4 and fp4 are");
    }

    private QuantState state(String name) throws QuantException {
      TensorInfo tensor = find(name.substring(weightName.length()));
      if (tensor.dtype() != DType.U8 || tensor.byteSize() > QuantState.LONGEST) {
        throw new QuantException(
            tensor + ": expected JSON as U8, of at most " + QuantState.LONGEST + " bytes");
      }
      return QuantState.parse(checkpoint.data(tensor).toArray(ValueLayout.JAVA_BYTE), name);
    }

    private void check(QuantState state, QuantType type, int rows, int cols) throws QuantException {
      if (!state.quantType().equals(type.id())) {
        throw new QuantException(
            weightName
                + ": the state's quant_type is '"
                + state.quantType()
                + "', its tensor's name says "
                + type.id());
      }
      if (!QuantOptions.isBlockSize(state.blockSize())) {
        throw new QuantException(
            weightName
                + ": blocksize: expected a power of two from "
                + QuantOptions.SMALLEST_BLOCK
                + " to "
                + QuantOptions.LARGEST_BLOCK
                + ", got "
                + state.blockSize());
      }
      if (!QuantState.DTYPES.contains(state.dtype())) {
        throw new QuantException(
            weightName
                + ": dtype: expected float32, float16 or bfloat16, got '"
                + state.dtype()
                + "'");
      }
      if (!state.shape().equals(List.of((long) rows, (long) cols))) {
        throw new QuantException(
            weightName
                + ": expected shape ["
                + rows
                + ", "
                + cols
                + "] by the model's config, got "
                + state.shape());
      }
    }

    private QuantizedMatrix.@Nullable Nesting nesting(
        QuantState.@Nullable Nested nested, long blocks) throws QuantException {
      if (nested == null) {
        for (String suffix : List.of(NESTED_ABSMAX, NESTED_MAP)) {
          if (checkpoint.find(weightName + suffix) != null) {
            throw new QuantException(
                weightName
                    + ": there is a tensor "
                    + weightName
                    + suffix
                    + ", but the quant_state has no nested_blocksize");
          }
        }
        return null;
      }
      long blockSize = nested.blockSize();
      if (!QuantOptions.isBlockSize(blockSize)) {
        throw new QuantException(
            weightName
                + ": nested_blocksize: expected a power of two from "
                + QuantOptions.SMALLEST_BLOCK
                + " to "
                + QuantOptions.LARGEST_BLOCK
                + ", got "
                + blockSize);
      }
      if (!nested.dtype().equals("float32")) {
        throw new QuantException(
            weightName + ": nested_dtype: expected float32, got '" + nested.dtype() + "'");
      }
      float offset = (float) nested.offset();
      if (!Float.isFinite(offset)) {
        throw new QuantException(
            weightName + ": nested_offset: expected a float32, got " + nested.offset());
      }
      float[] absmax = floats(NESTED_ABSMAX, (blocks + blockSize - 1) / blockSize);
      float[] map = floats(NESTED_MAP, 256);
      DynamicMap standard = DynamicMap.SIGNED;
      return new QuantizedMatrix.Nesting(
          absmax, standard.matches(map) ? standard.shared() : map, (int) blockSize, offset);
    }

    private float[] floats(String suffix, long count) throws QuantException {
      TensorInfo tensor = find(suffix);
      if (tensor.dtype() != DType.F32 || tensor.elements() != count) {
        throw wrong(suffix, count + " elements of F32", tensor);
      }
      float[] values = new float[(int) count];
      DType.F32.widen(checkpoint.data(tensor), 0, values, 0, values.length);
      for (int i = 0; i < values.length; i++) {
        if (!Float.isFinite(values[i])) {
          throw notFinite(suffix, i, values[i]);
        }
      }
      return values;
    }

    private void checkFinite(MemorySegment scales, long blocks) throws QuantException {
      for (long i = 0; i < blocks; i++) {
        float scale = scales.get(QuantizedMatrix.FLOAT, i * 4);
        if (!Float.isFinite(scale)) {
          throw notFinite(ABSMAX, i, scale);
        }
      }
    }

    private TensorInfo find(String suffix) throws QuantException {
      TensorInfo tensor = checkpoint.find(weightName + suffix);
      if (tensor == null) {
        throw new QuantException(
            weightName + ": the checkpoint lacks tensor " + weightName + suffix);
      }
      return tensor;
    }

    private QuantException wrong(String suffix, String expected, TensorInfo got) {
      return new QuantException(
          weightName + suffix + ": expected " + expected + ", got " + got.dtype() + got.shape());
    }

    private QuantException notFinite(String suffix, long index, float got) {
      return new QuantException(
          weightName + suffix + ": element " + index + " is " + got + ", expected a finite number");
    }
  }
}
