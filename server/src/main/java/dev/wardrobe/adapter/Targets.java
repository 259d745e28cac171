package dev.wardrobe.adapter;

import static dev.wardrobe.adapter.AdapterException.plain;
import static dev.wardrobe.adapter.AdapterException.quote;

import dev.wardrobe.adapter.AdapterException.Reason;
import dev.wardrobe.model.Module;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.regex.PatternSyntaxException;
import org.jspecify.annotations.Nullable;

/**
 * Which modules of a base an adapter changes, decided as PEFT 0.21 decides it.
 *
 * @param targets target_modules
 * @param excluded exclude_modules, or null
 * @param saved modules_to_save: each name, and the expression by which PEFT keeps what it names
 *     from being adapted
 * @param layers layers_to_transform, or null
 * @param layersPatterns layers_pattern, completed up to the layer's number
 */
record Targets(
    Selection targets,
    @Nullable Selection excluded,
    Map<String, PythonRegex> saved,
    @Nullable Set<Integer> layers,
    List<PythonRegex> layersPatterns) {

  /** A way to name modules. */
  sealed interface Selection {}

  /** Full paths, or what they end with after a dot. */
  record Names(Set<String> names) implements Selection {
    private boolean selects(String path) {
      return names.contains(path) || endsWithOne(path);
    }

    private boolean endsWithOne(String path) {
      for (int dot = path.indexOf('.'); dot >= 0; dot = path.indexOf('.', dot + 1)) {
        if (names.contains(path.substring(dot + 1))) {
          return true;
        }
      }
      return false;
    }
  }

  /** An expression that matches full paths. */
  record Pattern(String text, PythonRegex regex) implements Selection {}

  /** Every linear module but the head. */
  record AllLinear() implements Selection {}

  /**
   * What a base's modules come to.
   *
   * @param adapted those with A and B, in the base's order
   * @param replaced those that the adapter brings whole
   */
  record Resolved(Set<Module> adapted, Set<Module> replaced, List<String> warnings) {}

  /**
   * Finds the modules.
   *
   * @throws AdapterException if PEFT would refuse the choice, there is nothing to adapt, or a 4-bit
   *     module would be replaced
   */
  Resolved resolve(List<Module> modules, PythonRegex.Steps steps) throws AdapterException {
    Map<String, List<Module>> tree = tree(modules);
    Set<Module> adapted = new LinkedHashSet<>();
    Set<Module> replaced = new LinkedHashSet<>();
    List<String> warnings = new ArrayList<>();
    try {
      for (Map.Entry<String, List<Module>> node : tree.entrySet()) {
        if (isAdapted(node.getKey(), node.getValue(), steps)) {
          adapted.add(adaptable(node.getKey(), node.getValue()));
        }
      }
    } catch (PatternSyntaxException e) {
      throw invalid(
          "the expression %s: %s; name the modules in a list"
              .formatted(quote(e.getPattern()), plain(e.getDescription())));
    }
    List<String> unknown = new ArrayList<>();
    for (String name : saved.keySet()) {
      if (!replace(name, tree, replaced)) {
        unknown.add(name);
      }
    }
    if (!unknown.isEmpty()) {
      warnings.add(
          "modules_to_save names what this base does not have: " + plain(unknown.toString()));
    }
    checkReplaced(adapted, replaced);
    if (adapted.isEmpty()) {
      throw new AdapterException(
          Reason.MISMATCH,
          "%s: target_modules %s selects no module of this base; was it made for another?"
              .formatted(AdapterConfig.FILE, describe(targets)));
    }
    warnAboutNames(tree, warnings);
    return new Resolved(adapted, replaced, warnings);
  }

  private static AdapterException invalid(String message) {
    return new AdapterException(Reason.INVALID, AdapterConfig.FILE + ": " + message);
  }

  private static String describe(Selection selection) {
    return switch (selection) {
      case Names names -> plain(names.names().toString());
      case Pattern pattern -> quote(pattern.text());
      case AllLinear all -> "all-linear";
    };
  }

  /**
   * Everything that has a path, with the base's modules at or below it: PEFT's choice runs over
   * containers and parts without weights too.
   */
  private static Map<String, List<Module>> tree(List<Module> modules) {
    Map<String, List<Module>> tree = new LinkedHashMap<>();
    tree.put("model.rotary_emb", List.of());
    for (Module module : modules) {
      String path = module.path();
      for (int dot = path.indexOf('.'); dot >= 0; dot = path.indexOf('.', dot + 1)) {
        tree.computeIfAbsent(path.substring(0, dot), p -> new ArrayList<>()).add(module);
      }
      tree.put(path, List.of(module));
      if (path.endsWith(".mlp.gate_proj")) {
        tree.put(path.replace(".gate_proj", ".act_fn"), List.of());
      }
    }
    return tree;
  }

  private boolean isAdapted(String path, List<Module> modules, PythonRegex.Steps steps) {
    if (excluded != null && isSelected(excluded, path, modules, steps)) {
      return false;
    }
    for (PythonRegex kept : saved.values()) {
      if (kept.matchesStart(path, steps)) {
        return false;
      }
    }
    if (!(targets instanceof Names names)) {
      return isSelected(targets, path, modules, steps);
    }
    // An exact name is taken whatever layers_to_transform says.
    return names.names().contains(path) || (names.endsWithOne(path) && isInLayers(path, steps));
  }

  private static boolean isSelected(
      Selection selection, String path, List<Module> modules, PythonRegex.Steps steps) {
    return switch (selection) {
      case Names names -> names.selects(path);
      case Pattern pattern -> pattern.regex().matchesAll(path, steps);
      case AllLinear all ->
          modules.size() == 1
              && modules.getFirst().kind() == Module.Kind.LINEAR
              && modules.getFirst().path().equals(path);
    };
  }

  private boolean isInLayers(String path, PythonRegex.Steps steps) {
    if (layers == null || layers.isEmpty()) {
      return true;
    }
    if (!layersPatterns.isEmpty()
        && layersPatterns.stream().noneMatch(pattern -> pattern.matchesStart(path, steps))) {
      return false;
    }
    int layer = layer(path);
    return layer >= 0 && layers.contains(layer);
  }

  /** The number of the layer that {@code path} is in, or -1. */
  private static int layer(String path) {
    String prefix = "model.layers.";
    int end = path.indexOf('.', prefix.length());
    return path.startsWith(prefix) && end > 0
        ? Integer.parseInt(path.substring(prefix.length(), end))
        : -1;
  }

  private Module adaptable(String path, List<Module> modules) throws AdapterException {
    Module module = modules.size() == 1 ? modules.getFirst() : null;
    if (module == null || !module.path().equals(path) || module.kind() == Module.Kind.NORM) {
      throw invalid(
          "target_modules %s selects %s, which is neither linear nor an embedding; PEFT cannot"
                  .formatted(describe(targets), path)
              + " adapt it either: name projections");
    }
    return module;
  }

  /** Adds what modules_to_save's {@code name} stands for; false if that is nothing. */
  private static boolean replace(
      String name, Map<String, List<Module>> tree, Set<Module> replaced) {
    boolean found = false;
    for (Map.Entry<String, List<Module>> node : tree.entrySet()) {
      // Any ending counts, a module boundary or not: "norm" names input_layernorm too.
      if (node.getKey().endsWith(name)) {
        found = true;
        replaced.addAll(node.getValue());
      }
    }
    return found;
  }

  private static void checkReplaced(Set<Module> adapted, Set<Module> replaced)
      throws AdapterException {
    for (Module module : replaced) {
      if (module.quantized()) {
        throw invalid(
            "modules_to_save covers %s, which this base holds at 4 bits and which cannot be replaced"
                    .formatted(module.path())
                + " whole; adapt it by target_modules, or serve the base with that module skipped"
                + " from quantization");
      }
      if (adapted.contains(module)) {
        throw invalid(
            "%s is selected both by target_modules and by modules_to_save; name it in one of them"
                .formatted(module.path()));
      }
    }
  }

  private void warnAboutNames(Map<String, List<Module>> tree, List<String> warnings) {
    if (targets instanceof Names names) {
      Set<String> known = new HashSet<>();
      for (String path : tree.keySet()) {
        known.add(path);
        for (int dot = path.indexOf('.'); dot >= 0; dot = path.indexOf('.', dot + 1)) {
          known.add(path.substring(dot + 1));
        }
      }
      List<String> unknown = names.names().stream().filter(n -> !known.contains(n)).toList();
      if (!unknown.isEmpty()) {
        warnings.add(
            "target_modules names what this base does not have: " + plain(unknown.toString()));
      }
    }
  }
}
