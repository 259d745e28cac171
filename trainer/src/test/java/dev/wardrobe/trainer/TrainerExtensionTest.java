package dev.wardrobe.trainer;

import static org.assertj.core.api.Assertions.assertThat;

import dev.wardrobe.spi.ServerExtension;
import java.util.ServiceLoader;
import org.junit.jupiter.api.Test;

final class TrainerExtensionTest {
  @Test
  void found_byServiceLoader() {
    assertThat(ServiceLoader.load(ServerExtension.class))
        .hasOnlyElementsOfTypes(TrainerExtension.class)
        .hasSize(1);
  }
}
