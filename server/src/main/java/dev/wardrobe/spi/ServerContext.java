package dev.wardrobe.spi;

import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.compute.Backend;
import dev.wardrobe.engine.Engine;
import dev.wardrobe.model.Model;
import java.nio.file.Path;
import java.util.List;

/**
 * What a running server shares with its extensions.
 *
 * @param runs folders of training runs to tell of
 */
public record ServerContext(
    Backend backend, Model model, AdapterRegistry adapters, Engine engine, List<Path> runs) {
  public ServerContext {
    runs = List.copyOf(runs);
  }
}
