package dev.wardrobe.safetensors;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class SafetensorsWriterTest {
  @TempDir Path folder;

  @Test
  void commit_laysOutAsTheLibraryDoes() throws IOException {
    Path file = folder.resolve("out.safetensors");
    List<TensorSpec> tensors =
        List.of(
            new TensorSpec("a", DType.U8, List.of(3L)),
            new TensorSpec("c", DType.F32, List.of()),
            new TensorSpec("b \"\\\u0001\u00e9", DType.F32, List.of(1L, 1L)));
    try (SafetensorsWriter writer =
        SafetensorsWriter.create(file, tensors, Map.of("format", "pt", "also", "\n"))) {
      writer.write("a", bytes(1, 2));
      writer.write("c", bytes(4, 5, 6, 7));
      assertThat(file).doesNotExist();
      writer.write("a", bytes(3));
      writer.write("b \"\\\u0001\u00e9", bytes(8, 9, 10, 11));
      writer.commit();
    }
    byte[] written = Files.readAllBytes(file);
    String header =
        "{\"__metadata__\":{\"also\":\"\\n\",\"format\":\"pt\"},"
            + "\"b \\\"\\\\\\u0001\u00e9\":"
            + "{\"dtype\":\"F32\",\"shape\":[1,1],\"data_offsets\":[0,4]},"
            + "\"c\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[4,8]},"
            + "\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[8,11]}}";
    int length = (written[0] & 0xff) | ((written[1] & 0xff) << 8);
    assertThat(length % 8).isZero();
    assertThat(new String(written, 8, length, StandardCharsets.UTF_8).stripTrailing())
        .isEqualTo(header);
    assertThat(written).endsWith(8, 9, 10, 11, 4, 5, 6, 7, 1, 2, 3);
    try (Stream<Path> left = Files.list(folder)) {
      assertThat(left).containsExactly(file);
    }
  }

  @Test
  void commit_nothingInIt_isAFile() throws IOException {
    Path file = folder.resolve("empty.safetensors");
    try (SafetensorsWriter writer = SafetensorsWriter.create(file, List.of(), Map.of())) {
      writer.commit();
    }
    try (SafetensorsFile opened = SafetensorsFile.open(file)) {
      assertThat(opened.tensors()).isEmpty();
    }
  }

  @Test
  void write_wrongBytes_refused() throws IOException {
    Path file = folder.resolve("out.safetensors");
    List<TensorSpec> tensors = List.of(new TensorSpec("a", DType.I16, List.of(2L)));
    try (SafetensorsWriter writer = SafetensorsWriter.create(file, tensors, Map.of())) {
      writer.write("a", bytes(1));
      assertThatThrownBy(writer::commit)
          .isInstanceOf(SafetensorsException.class)
          .hasMessageEndingWith("tensor 'a': 3 of its 4 bytes were not written");
      assertThatThrownBy(() -> writer.write("a", bytes(1, 2, 3, 4)))
          .isInstanceOf(SafetensorsException.class)
          .hasMessageEndingWith("expected at most 3 more bytes, got 4");
      assertThatThrownBy(() -> writer.write("b", bytes(1)))
          .isInstanceOf(SafetensorsException.class)
          .hasMessageEndingWith("no tensor was declared as 'b'");
    }
    try (Stream<Path> left = Files.list(folder)) {
      assertThat(left).isEmpty();
    }
  }

  @Test
  void create_ambiguousNames_refused() {
    Path file = folder.resolve("out.safetensors");
    TensorSpec a = new TensorSpec("a", DType.U8, List.of(1L));
    TensorSpec wide = new TensorSpec("a", DType.F32, List.of(1L));
    TensorSpec between = new TensorSpec("b", DType.F32, List.of(1L));
    assertThatThrownBy(() -> SafetensorsWriter.create(file, List.of(a, between, wide), Map.of()))
        .isInstanceOf(SafetensorsException.class)
        .hasMessageContaining("named 'a'");
    TensorSpec metadata = new TensorSpec("__metadata__", DType.U8, List.of(1L));
    assertThatThrownBy(() -> SafetensorsWriter.create(file, List.of(metadata), Map.of()))
        .isInstanceOf(SafetensorsException.class);
  }

  @Test
  void rewrite_referenceFiles_sameBytes() throws IOException {
    List<Path> files;
    try (Stream<Path> all = Files.walk(ReferenceFolder.require("golden/models"))) {
      files = all.filter(f -> f.toString().endsWith(".safetensors")).toList();
    }
    assertThat(files).hasSizeGreaterThan(20);
    Path copy = folder.resolve("copy.safetensors");
    for (Path file : files) {
      rewrite(file, copy);
      assertThat(Files.mismatch(copy, file)).as(file.toString()).isEqualTo(-1);
    }
  }

  private static void rewrite(Path file, Path copy) throws IOException {
    try (SafetensorsFile original = SafetensorsFile.open(file)) {
      List<TensorInfo> tensors = new ArrayList<>(original.tensors().values());
      Collections.shuffle(tensors, new Random(1));
      List<TensorSpec> specs =
          tensors.stream().map(t -> new TensorSpec(t.name(), t.dtype(), t.shape())).toList();
      try (SafetensorsWriter writer = SafetensorsWriter.create(copy, specs, original.metadata())) {
        for (TensorInfo tensor : tensors) {
          writer.write(tensor.name(), original.data(tensor));
        }
        writer.commit();
      }
    }
  }

  private static MemorySegment bytes(int... values) {
    byte[] bytes = new byte[values.length];
    for (int i = 0; i < values.length; i++) {
      bytes[i] = (byte) values[i];
    }
    return MemorySegment.ofArray(bytes);
  }
}
