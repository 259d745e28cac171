package dev.wardrobe.safetensors;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

final class CheckpointTest {
  private static final String ONE = "{'dtype':'U8','shape':[1],'data_offsets':[0,1]}";

  @TempDir Path folder;

  @Test
  void open_singleFile() throws IOException {
    shard("model.safetensors", "{'a':" + ONE + "}", 5);
    try (Checkpoint checkpoint = Checkpoint.open(folder)) {
      assertThat(checkpoint.tensors().keySet()).containsExactly("a");
      assertThat(checkpoint.files()).containsExactly(folder.resolve("model.safetensors"));
    }
  }

  @Test
  void open_shards_readsEachTensorFromItsOwn() throws IOException {
    shard("m-1.safetensors", "{'a':" + ONE + "}", 5);
    shard("m-2.safetensors", "{'b':{'dtype':'F16','shape':[1],'data_offsets':[0,2]}}", 0, 0x3c);
    index(
        "{'metadata':{'total_size':3},'weight_map':{'b':'m-2.safetensors','a':'m-1.safetensors'}}");
    try (Checkpoint checkpoint = Checkpoint.open(folder)) {
      assertThat(checkpoint.tensors().keySet()).containsExactly("a", "b");
      assertThat(checkpoint.files()).hasSize(2);
      TensorInfo b = checkpoint.require("b");
      assertThat(checkpoint.floats(b)).containsExactly(1f);
      assertThat(checkpoint.data(b).byteSize()).isEqualTo(2);
    }
  }

  @Test
  void open_nothingThere_saysWhatWasLookedFor() throws IOException {
    Files.createFile(folder.resolve("pytorch_model.bin"));
    assertRefused("expected model.safetensors or model.safetensors.index.json, found neither;");
  }

  @Test
  void open_shardMissing() throws IOException {
    shard("m-1.safetensors", "{'a':" + ONE + "}", 5);
    index("{'weight_map':{'a':'m-1.safetensors','b':'m-2.safetensors','c':'m-2.safetensors'}}");
    assertRefused("shard 'm-2.safetensors', which by the index holds 2 tensors, is missing");
  }

  @Test
  void open_shardCutShort() throws IOException {
    byte[] whole = shard("m-1.safetensors", "{'a':" + ONE + "}", 5);
    index("{'weight_map':{'a':'m-1.safetensors'}}");
    Files.write(folder.resolve("m-1.safetensors"), Arrays.copyOf(whole, whole.length - 1));
    assertRefused("m-1.safetensors: tensor 'a' ends at byte 1 of the data");
  }

  @Test
  void open_tensorNotInItsShard() throws IOException {
    shard("m-1.safetensors", "{'a':" + ONE + "}", 5);
    index("{'weight_map':{'a':'m-1.safetensors','b':'m-1.safetensors'}}");
    assertRefused("tensor 'b' is not in 'm-1.safetensors', where the index places it");
  }

  @Test
  void open_tensorInAnotherShard() throws IOException {
    shard("m-1.safetensors", "{'a':" + ONE + "}", 5);
    shard("m-2.safetensors", "{'b':" + ONE + "}", 5);
    index("{'weight_map':{'a':'m-2.safetensors','b':'m-1.safetensors'}}");
    assertRefused("m-1.safetensors: holds tensor 'a', which the index places in 'm-2.safetensors'");
  }

  @Test
  void open_tensorInTwoShards() throws IOException {
    shard("m-1.safetensors", "{'a':" + ONE + "}", 5);
    shard(
        "m-2.safetensors",
        "{'a':" + ONE + ",'b':{'dtype':'U8','shape':[0],'data_offsets':[1,1]}}",
        5);
    index("{'weight_map':{'a':'m-1.safetensors','b':'m-2.safetensors'}}");
    assertRefused("m-2.safetensors: holds tensor 'a', which the index places in 'm-1.safetensors'");
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "../m.safetensors",
        "/etc/m.safetensors",
        "sub/m.safetensors",
        "..\\\\m.safetensors",
        "C:m.safetensors",
        "m.bin",
        "..",
        "m\\u0000.safetensors",
        "\\ud800.safetensors"
      })
  void open_shardNameLeavesTheFolder(String name) throws IOException {
    index("{'weight_map':{'a':'" + name + "'}}");
    assertRefused("expected the name of a .safetensors file in this directory");
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "",
        "[]",
        "{",
        "{}",
        "{'weight_map':{}}",
        "{'weight_map':[]}",
        "{'weight_map':{'a':1}}",
        "{'weight_map':{'a':'m.safetensors','a':'n.safetensors'}}",
        "{'weight_map':{'a':'m.safetensors'}} x",
      })
  void open_indexIsNoIndex(String json) throws IOException {
    index(json);
    assertRefused("model.safetensors.index.json: ");
  }

  @Test
  void open_deepIndex() throws IOException {
    index("{'metadata':" + "[".repeat(20_000));
    assertRefused("nesting depth");
  }

  private void assertRefused(String message) {
    assertThatThrownBy(() -> Checkpoint.open(folder).close())
        .isInstanceOf(SafetensorsException.class)
        .hasMessageContaining(folder.toString())
        .hasMessageContaining(message);
  }

  private byte[] shard(String name, String header, int... data) throws IOException {
    byte[] file = SafetensorsFileTest.file(header, data);
    Files.write(folder.resolve(name), file);
    return file;
  }

  private void index(String json) throws IOException {
    Files.writeString(folder.resolve("model.safetensors.index.json"), json.replace('\'', '"'));
  }
}
