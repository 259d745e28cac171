package dev.wardrobe.adapter;

import dev.wardrobe.adapter.AdapterException.Reason;
import dev.wardrobe.model.Module;
import dev.wardrobe.model.Modules;
import java.util.ArrayList;
import java.util.List;

/**
 * A module that a PEFT configuration adapts: for whoever makes the adapter that it describes.
 *
 * @param rank of A and B
 * @param scale of their product: alpha / rank, or alpha / √rank
 */
public record AdaptedModule(Module module, int rank, float scale) {

  /**
   * The projections that {@code adapter_config.json} adapts, in the base's order, as PEFT and
   * {@link Adapter#read} choose them.
   *
   * @param config the file's bytes
   * @throws AdapterException if it is not such a file, selects nothing, or asks for more than
   *     projections: embeddings, the head, or modules replaced whole
   */
  public static List<AdaptedModule> of(byte[] config, Modules modules) throws AdapterException {
    AdapterConfig parsed = AdapterConfig.parse(config, AdapterOptions.DEFAULT);
    PythonRegex.Steps steps = new PythonRegex.Steps();
    Targets.Resolved resolved = parsed.targets().resolve(modules.all(), steps);
    List<AdaptedModule> adapted = new ArrayList<>();
    for (Module module : modules.all()) {
      if (resolved.replaced().contains(module)
          || (resolved.adapted().contains(module) && module.kind() != Module.Kind.LINEAR)) {
        throw new AdapterException(
            Reason.MISMATCH,
            "%s: expected projections alone to be trained, got %s; leave it out of target_modules"
                    .formatted(AdapterConfig.FILE, module.path())
                + " and modules_to_save");
      }
      if (resolved.adapted().contains(module)) {
        Gate.Plan plan = Gate.plan(parsed, module, steps);
        adapted.add(new AdaptedModule(module, plan.rank(), plan.scale()));
      }
    }
    return List.copyOf(adapted);
  }
}
