package dev.wardrobe.quant;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.wardrobe.safetensors.DType;
import dev.wardrobe.safetensors.ReferenceFolder;
import dev.wardrobe.safetensors.SafetensorsFile;
import dev.wardrobe.safetensors.TensorInfo;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.Map;
import org.junit.jupiter.api.Test;

/** Every case that bitsandbytes quantized, bit for bit; the rules are in {@link Quantization}. */
final class GoldenQuantizationTest {
  private static final Path COPIED = Path.of("src/test/resources/golden/nf4");

  @Test
  void copiedCases() throws Exception {
    assertThat(checkCases(COPIED)).isEqualTo(484);
  }

  @Test
  void allCases() throws Exception {
    assertThat(checkCases(ReferenceFolder.require("golden/nf4"))).isGreaterThan(500);
  }

  private static int checkCases(Path folder) throws Exception {
    JsonNode cases = new ObjectMapper().readTree(folder.resolve("nf4.json").toFile()).get("cases");
    try (Golden golden = new Golden(SafetensorsFile.open(folder.resolve("nf4.safetensors")))) {
      for (Map.Entry<String, JsonNode> entry : cases.properties()) {
        checkWritten(golden, entry.getKey(), entry.getValue());
        checkRead(golden, entry.getKey(), entry.getValue());
      }
    }
    return cases.size();
  }

  private static void checkWritten(Golden golden, String name, JsonNode node) throws IOException {
    Case c = new Case(name, node);
    QuantizedMatrix matrix =
        QuantizedMatrix.quantize(
            FloatSource.of(name, golden.floats(c.input())),
            c.rows(),
            c.cols(),
            new QuantOptions(c.type(), c.blockSize(), c.doubleQuant()),
            c.dtype());
    assertThat(bytes(matrix.packed())).as(name).isEqualTo(golden.bytes(name + ".packed"));
    float[] absmax = golden.floats(c.plain() + ".absmax");
    if (!c.doubleQuant()) {
      assertThat(bytes(matrix.absmaxPlain())).as(name).isEqualTo(golden.bytes(name + ".absmax"));
      return;
    }
    float offset = golden.floats(name + ".offset")[0];
    assertThat(Math.abs(matrix.nestedOffset() - offset))
        .as(name)
        .isLessThanOrEqualTo(2 * Math.ulp(offset));
    NestedAbsmax nested = NestedAbsmax.encode(absmax, offset);
    assertThat(nested.absmax()).as(name).isEqualTo(golden.floats(name + ".nested_absmax"));
    byte[] codes = golden.bytes(name + ".absmax_codes_exact");
    assertThat(nested.codes()).as(name).isEqualTo(codes);
    if (matrix.nestedOffset() == offset) {
      assertThat(bytes(matrix.absmaxCodes())).as(name).isEqualTo(codes);
    }
  }

  private static void checkRead(Golden golden, String name, JsonNode node) throws Exception {
    Case c = new Case(name, node);
    float[] map = golden.floats("quant_map." + c.type().id());
    assertThat(map).isEqualTo(c.type().codes());
    QuantizedMatrix.Nesting nesting = null;
    if (c.doubleQuant()) {
      nesting =
          new QuantizedMatrix.Nesting(
              golden.floats(name + ".nested_absmax"),
              golden.floats("nested_quant_map"),
              node.get("nested_blocksize").asInt(),
              golden.floats(name + ".offset")[0]);
    }
    QuantizedMatrix matrix =
        new QuantizedMatrix(
            c.type(),
            c.rows(),
            c.cols(),
            c.blockSize(),
            c.dtype(),
            golden.data(name + ".packed"),
            golden.data(name + (c.doubleQuant() ? ".absmax_codes" : ".absmax")),
            map,
            nesting);
    if (golden.has(name + ".absmax_decoded")) {
      float[] decoded = new float[Math.toIntExact(matrix.blocks())];
      matrix.absmax(0, decoded, 0, decoded.length);
      assertThat(decoded).as(name).isEqualTo(golden.floats(name + ".absmax_decoded"));
    }
    assertThat(sha256(rounded(matrix))).as(name).isEqualTo(node.get("dequant_sha256").asText());
  }

  /** All elements in the type that they had before, as bitsandbytes' function hands them out. */
  private static byte[] rounded(QuantizedMatrix matrix) {
    DType dtype =
        switch (matrix.sourceDtype()) {
          case "float32" -> DType.F32;
          case "float16" -> DType.F16;
          default -> DType.BF16;
        };
    float[] values = new float[Math.toIntExact(matrix.elements())];
    matrix.dequantize(0, values, 0, values.length);
    byte[] bytes = new byte[values.length * dtype.bytes()];
    dtype.narrow(values, 0, values.length, MemorySegment.ofArray(bytes), 0);
    return bytes;
  }

  @Test
  void dynamicMaps() throws IOException {
    try (Golden golden = new Golden(SafetensorsFile.open(COPIED.resolve("nf4.safetensors")))) {
      assertThat(DynamicMap.SIGNED.values()).isEqualTo(golden.floats("dynamic_map.signed"));
      assertThat(DynamicMap.UNSIGNED.values()).isEqualTo(golden.floats("dynamic_map.unsigned"));
      assertThat(DynamicMap.SIGNED.values()).isEqualTo(golden.floats("nested_quant_map"));
    }
  }

  @Test
  void blockwise8_decodes() throws IOException {
    try (Golden golden = new Golden(SafetensorsFile.open(COPIED.resolve("nf4.safetensors")))) {
      for (String kind : new String[] {"randn_1000", "ramp_600", "half_zero_300", "zeros_300"}) {
        for (DynamicMap map : new DynamicMap[] {DynamicMap.SIGNED, DynamicMap.UNSIGNED}) {
          String name = "blockwise8." + kind + (map == DynamicMap.SIGNED ? ".signed" : ".unsigned");
          float[] absmax = golden.floats(name + ".absmax");
          byte[] codes = golden.bytes(name + ".codes");
          float[] expected = golden.floats(name + ".dequant");
          for (int i = 0; i < codes.length; i++) {
            assertThat(map.value(codes[i] & 0xff) * absmax[i / 256])
                .as("%s[%d]", name, i)
                .isEqualTo(expected[i]);
          }
        }
      }
    }
  }

  private static byte[] bytes(MemorySegment segment) {
    return segment.toArray(ValueLayout.JAVA_BYTE);
  }

  private static String sha256(byte[] bytes) throws NoSuchAlgorithmException {
    return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
  }

  /** A case's name and description. */
  private record Case(String name, JsonNode node) {
    QuantType type() {
      return node.get("quant_type").asText().equals("nf4") ? QuantType.NF4 : QuantType.FP4;
    }

    int rows() {
      return node.get("shape").get(0).asInt();
    }

    int cols() {
      return node.get("shape").get(1).asInt();
    }

    int blockSize() {
      return node.get("blocksize").asInt();
    }

    boolean doubleQuant() {
      return node.get("double_quant").asBoolean();
    }

    String dtype() {
      return node.get("dtype").asText();
    }

    String input() {
      return name.substring(0, name.indexOf('.')) + "." + dtype() + ".input";
    }

    String plain() {
      return name.replace(".dq", ".plain");
    }
  }

  /** A file's tensors by name. */
  private record Golden(SafetensorsFile file) implements AutoCloseable {
    boolean has(String name) {
      return file.find(name) != null;
    }

    MemorySegment data(String name) {
      return file.data(info(name));
    }

    byte[] bytes(String name) {
      return GoldenQuantizationTest.bytes(data(name));
    }

    float[] floats(String name) throws IOException {
      return file.floats(info(name));
    }

    private TensorInfo info(String name) {
      TensorInfo info = file.find(name);
      assertThat(info).as(name).isNotNull();
      return info;
    }

    @Override
    public void close() {
      file.close();
    }
  }
}
