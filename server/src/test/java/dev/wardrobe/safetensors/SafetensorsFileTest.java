package dev.wardrobe.safetensors;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

final class SafetensorsFileTest {
  private static final String ONE_BYTE = "{'dtype':'U8','shape':[1],'data_offsets':[0,1]}";

  @Test
  void of_readsTensorsAndMetadata() throws SafetensorsException {
    byte[] file =
        file(
            "{'__metadata__':{'format':'pt','note':'caf\u00e9'},"
                + "'b':{'dtype':'F16','shape':[2],'data_offsets':[8,12]},"
                + "'a':{'shape':[1,2],'dtype':'F32','data_offsets':[0,8],'later':{'x':[1]}},"
                + "'scalar':{'dtype':'BF16','shape':[],'data_offsets':[12,14]},"
                + "'none':{'dtype':'F64','shape':[3,0],'data_offsets':[12,12]}}",
            0,
            0,
            0x80,
            0x3f,
            0,
            0,
            0,
            0xc0,
            0,
            0x3c,
            0,
            0x80,
            0x40,
            0x40);
    try (SafetensorsFile opened = SafetensorsFile.of(MemorySegment.ofArray(file), "f")) {
      assertThat(opened.metadata()).isEqualTo(Map.of("format", "pt", "note", "caf\u00e9"));
      assertThat(opened.tensors().keySet()).containsExactly("a", "b", "none", "scalar");
      assertThat(opened.require("a"))
          .isEqualTo(new TensorInfo("a", DType.F32, List.of(1L, 2L), 0, 8));
      assertThat(opened.floats(opened.require("a"))).containsExactly(1f, -2f);
      assertThat(opened.floats(opened.require("b"))).containsExactly(1f, -0f);
      assertThat(opened.floats(opened.require("scalar"))).containsExactly(3f);
      assertThat(opened.require("scalar").elements()).isEqualTo(1);
      assertThat(opened.data(opened.require("none")).byteSize()).isZero();
      assertThat(opened.data(opened.require("b")).isReadOnly()).isTrue();
      assertThat(opened.find("c")).isNull();
      assertThatThrownBy(() -> opened.require("c"))
          .isInstanceOf(SafetensorsException.class)
          .hasMessage("f: expected a tensor 'c', found none");
      assertThatThrownBy(() -> opened.floats(opened.require("none")))
          .isInstanceOf(SafetensorsException.class)
          .hasMessage("f: tensor 'none': expected F32, F16 or BF16, got F64");
      assertThatThrownBy(() -> opened.data(new TensorInfo("a", DType.F32, List.of(2L), 0, 8)))
          .isInstanceOf(IllegalArgumentException.class);
    }
  }

  static List<Arguments> headers() {
    return List.of(
        Arguments.of("{'a':" + ONE_BYTE, "Unexpected end-of-input"),
        Arguments.of("[]", "expected an object, got an array"),
        Arguments.of("", "expected an object, got the end"),
        Arguments.of("\ufeff{'a':" + ONE_BYTE + "}", "not the expected JSON"),
        Arguments.of("{'a':" + ONE_BYTE + ",'a':" + ONE_BYTE + "}", "Duplicate field 'a'"),
        Arguments.of("{'a':" + ONE_BYTE + "} {}", "goes on after its JSON object"),
        Arguments.of("{'a':" + ONE_BYTE + "}\0", "not the expected JSON"),
        Arguments.of("{'\\ud800':" + ONE_BYTE + "}", "half of a surrogate pair"),
        Arguments.of("{'__metadata__':{'x':1},'a':" + ONE_BYTE + "}", "expected a string"),
        Arguments.of("{'__metadata__':[],'a':" + ONE_BYTE + "}", "__metadata__: expected an obj"),
        Arguments.of("{'a':5}", "tensor 'a': expected an object, got an integer"),
        Arguments.of("{'a':{'shape':[1],'data_offsets':[0,1]}}", "one is missing"),
        Arguments.of(tensor("F99", "[1]", "[0,1]"), "unknown dtype 'F99'"),
        Arguments.of(tensor("F4", "[2]", "[0,1]"), "dtype F4 has elements below a byte"),
        Arguments.of(tensor("U8", "[-1]", "[0,1]"), "expected 0 to 2^63 - 1, got -1"),
        Arguments.of(tensor("U8", "[1.0]", "[0,1]"), "got a number with a fraction"),
        Arguments.of(tensor("U8", "['1']", "[0,1]"), "expected an integer, got a string"),
        Arguments.of(tensor("U8", "[1]", "[-0,1]"), "expected 0 to 2^63 - 1"),
        Arguments.of(tensor("U8", "[1]", "[-1,0]"), "expected 0 to 2^63 - 1, got -1"),
        Arguments.of(tensor("U8", "[1]", "[0,18446744073709551616]"), "expected 0 to 2^63 - 1"),
        Arguments.of(tensor("U8", "[1]", "[0,1,1]"), "must be a begin and an end, got [0, 1, 1]"),
        Arguments.of(tensor("U8", "[1]", "[1,0]"), "must be a begin and an end, got [1, 0]"),
        Arguments.of(tensor("U8", "[2]", "[0,1]"), "takes 2 bytes, but data_offsets [0, 1] hold 1"),
        Arguments.of(tensor("U8", "[4294967296,4294967296]", "[0,0]"), "overflows 63 bits"),
        Arguments.of(tensor("F32", "[4611686018427387904]", "[0,0]"), "overflows 63 bits"),
        Arguments.of(tensor("U8", "[1]", "[1,2]"), "starts at byte 1 of the data, but the tens"),
        Arguments.of(tensor("U8", "[2]", "[0,2]"), "ends at byte 2 of the data, but the file ho"),
        Arguments.of("{}", "cover 0 bytes of data, but the file holds 1"),
        Arguments.of(
            "{'a':" + ONE_BYTE + ",'b':" + ONE_BYTE + "}",
            "tensor 'b' starts at byte 0 of the data, but the tensors before it end at 1"),
        Arguments.of("{'a':{'x':" + "[".repeat(100_000) + "}}", "nesting depth"),
        Arguments.of(
            "{'bad\\u0007name" + "x".repeat(1000) + "':" + tensorBody("U8", "[2]", "[0,1]") + "}",
            "tensor 'bad\\u0007name" + "x".repeat(190)));
  }

  @ParameterizedTest
  @MethodSource("headers")
  void of_refusesHeader(String json, String message) {
    assertThatThrownBy(() -> SafetensorsFile.of(MemorySegment.ofArray(file(json, 7)), "f.st"))
        .isInstanceOf(SafetensorsException.class)
        .hasMessageStartingWith("f.st: ")
        .hasMessageContaining(message);
  }

  @ParameterizedTest
  @CsvSource({
    "0, 0, expected an object",
    "100000001, 0, at most 100000000 are allowed",
    "9223372036854775807, 64, header's length is 9223372036854775807 bytes",
    "-1, 64, header's length is 18446744073709551615 bytes",
    "65, 64, 'header''s length is 65 bytes, but only 64 follow'"
  })
  void of_refusesHeaderLength(long length, int following, String message) {
    byte[] file = new byte[8 + following];
    ByteBuffer.wrap(file).order(ByteOrder.LITTLE_ENDIAN).putLong(length);
    assertThatThrownBy(() -> SafetensorsFile.of(MemorySegment.ofArray(file), "f"))
        .isInstanceOf(SafetensorsException.class)
        .hasMessageContaining(message);
  }

  @Test
  void of_refusesMalformedUtf8() {
    byte[] file = file("{'a?':" + ONE_BYTE + "}", 7);
    for (int bad : new int[] {0xff, 0xc0, 0x80, 0xed}) {
      file[8 + 3] = (byte) bad;
      assertThatThrownBy(() -> SafetensorsFile.of(MemorySegment.ofArray(file), "f"))
          .isInstanceOf(SafetensorsException.class)
          .hasMessage("f: the header is not UTF-8");
    }
  }

  @Test
  void of_acceptsWhatTheLibraryAccepts() throws SafetensorsException {
    for (String json :
        List.of(
            "  \n{'a':" + ONE_BYTE + "}\t ",
            "{'__metadata__':null,'a':" + ONE_BYTE + "}",
            "{'':" + ONE_BYTE + "}",
            "{'a':" + ONE_BYTE + ",'z':{'dtype':'F32','shape':[0],'data_offsets':[1,1]}}")) {
      SafetensorsFile opened = SafetensorsFile.of(MemorySegment.ofArray(file(json, 7)), "f");
      assertThat(opened.tensors()).isNotEmpty();
    }
  }

  @Test
  void of_damagedByte_opensOrRefuses() {
    long seed = 20260401;
    Random random = new Random(seed);
    byte[] good =
        file(
            "{'a':{'dtype':'F16','shape':[1,2],'data_offsets':[0,4]},"
                + "'b':{'dtype':'U8','shape':[3],'data_offsets':[4,7]}}",
            1,
            2,
            3,
            4,
            5,
            6,
            7);
    int refused = 0;
    for (int round = 0; round < 3000; round++) {
      byte[] damaged = Arrays.copyOf(good, good.length - (round % 5 == 0 ? random.nextInt(9) : 0));
      damaged[random.nextInt(damaged.length)] ^= (byte) (1 << random.nextInt(8));
      try {
        SafetensorsFile opened = SafetensorsFile.of(MemorySegment.ofArray(damaged), "f");
        opened.tensors().values().forEach(opened::data);
      } catch (SafetensorsException e) {
        refused++;
      }
    }
    assertThat(refused).as("refused with seed %d", seed).isBetween(1000, 2999);
  }

  @Test
  void open_refusesWhatIsNoFile(@TempDir Path folder) {
    assertThatThrownBy(() -> SafetensorsFile.open(folder.resolve("absent")))
        .isInstanceOf(SafetensorsException.class)
        .hasMessageEndingWith("absent: no such file");
    assertThatThrownBy(() -> SafetensorsFile.open(folder))
        .isInstanceOf(SafetensorsException.class)
        .hasMessageEndingWith("expected a regular file");
  }

  @Test
  void open_emptyFile_refused(@TempDir Path folder) throws IOException {
    Path empty = Files.createFile(folder.resolve("empty"));
    assertThatThrownBy(() -> SafetensorsFile.open(empty))
        .isInstanceOf(SafetensorsException.class)
        .hasMessageContaining("expected a safetensors file of 8 bytes or more, got 0");
  }

  @Test
  void close_endsSegments(@TempDir Path folder) throws IOException {
    Path path = folder.resolve("f");
    Files.write(path, file("{'a':" + ONE_BYTE + "}", 7));
    SafetensorsFile opened = SafetensorsFile.open(path);
    MemorySegment data = opened.data(opened.require("a"));
    assertThat(data.get(ValueLayout.JAVA_BYTE, 0)).isEqualTo((byte) 7);
    opened.close();
    opened.close();
    assertThatThrownBy(() -> data.get(ValueLayout.JAVA_BYTE, 0))
        .isInstanceOf(IllegalStateException.class);
  }

  @Test
  void open_badAdapters_asTheLibraryDoes() throws IOException {
    Path folder = ReferenceFolder.require("golden/adapters_bad");
    JsonNode cases = new ObjectMapper().readTree(folder.resolve("bad.json").toFile());
    int checked = 0;
    for (Map.Entry<String, JsonNode> entry : cases.properties()) {
      Path file = folder.resolve(entry.getKey()).resolve("adapter_model.safetensors");
      JsonNode verdict = entry.getValue().get("safetensors_library");
      if (verdict.isNull()) {
        continue;
      }
      if (verdict.asText().startsWith("opens")) {
        try (SafetensorsFile opened = SafetensorsFile.open(file)) {
          assertThat("opens, " + opened.tensors().size() + " tensors").isEqualTo(verdict.asText());
        }
      } else {
        assertThatThrownBy(() -> SafetensorsFile.open(file).close())
            .as(entry.getKey())
            .isInstanceOf(SafetensorsException.class)
            .hasMessageContaining(file.toString());
      }
      checked++;
    }
    assertThat(checked).isGreaterThan(30);
  }

  static String tensor(String dtype, String shape, String offsets) {
    return "{'a':" + tensorBody(dtype, shape, offsets) + "}";
  }

  private static String tensorBody(String dtype, String shape, String offsets) {
    return "{'dtype':'" + dtype + "','shape':" + shape + ",'data_offsets':" + offsets + "}";
  }

  /** A file of a header, written with single quotes, and data. */
  static byte[] file(String json, int... data) {
    byte[] header = json.replace('\'', '"').getBytes(StandardCharsets.UTF_8);
    ByteBuffer file =
        ByteBuffer.allocate(8 + header.length + data.length).order(ByteOrder.LITTLE_ENDIAN);
    file.putLong(header.length).put(header);
    for (int value : data) {
      file.put((byte) value);
    }
    return file.array();
  }
}
