package dev.wardrobe.serve;

import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.engine.Engine;
import dev.wardrobe.model.Model;
import dev.wardrobe.telemetry.Telemetry;
import dev.wardrobe.v1.ModelInfoResponse;
import java.util.concurrent.Executor;
import java.util.function.Supplier;

/**
 * What the front ends offer.
 *
 * @param workers run what takes time
 * @param info the answer to ModelInfo
 */
public record Served(
    Model model,
    Conversation conversation,
    AdapterRegistry adapters,
    Engine engine,
    Executor workers,
    Supplier<ModelInfoResponse> info,
    Telemetry telemetry) {}
