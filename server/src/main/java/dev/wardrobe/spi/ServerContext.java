package dev.wardrobe.spi;

import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.compute.Backend;
import dev.wardrobe.engine.Engine;
import dev.wardrobe.model.Model;

/** What a running server shares with its extensions. */
public record ServerContext(
    Backend backend, Model model, AdapterRegistry adapters, Engine engine) {}
