package dev.wardrobe.tenant;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.HashSet;
import java.util.Set;
import org.junit.jupiter.api.Test;

final class ApiKeyTest {
  @Test
  void created_areWellFormedAndNoTwoAreEqual() {
    Set<String> keys = new HashSet<>();
    for (int i = 0; i < 1000; i++) {
      String key = ApiKey.create();
      assertThat(key).matches("wardrobe_[0-9A-Za-z]{49}");
      assertThat(ApiKey.isWellFormed(key)).isTrue();
      keys.add(key);
    }
    assertThat(keys).hasSize(1000);
  }

  @Test
  void changedOrCut_isNotWellFormed() {
    String key = ApiKey.create();
    for (int i = 0; i < key.length(); i++) {
      char other = key.charAt(i) == 'x' ? 'y' : 'x';
      String changed = key.substring(0, i) + other + key.substring(i + 1);
      assertThat(ApiKey.isWellFormed(changed)).as("changed at %d", i).isFalse();
      assertThat(ApiKey.isWellFormed(key.substring(0, i))).as("cut at %d", i).isFalse();
    }
    assertThat(ApiKey.isWellFormed(key + "0")).isFalse();
    assertThat(ApiKey.isWellFormed(" " + key)).isFalse();
    assertThat(ApiKey.isWellFormed("wardrobe_" + "é".repeat(49))).isFalse();
  }

  @Test
  void hash_isSha256() {
    // As sha256sum has it.
    assertThat(ApiKey.hash("abc"))
        .isEqualTo("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  }
}
