package dev.wardrobe.trainer.optim;

import dev.wardrobe.compute.UpdateRule;
import dev.wardrobe.trainer.backward.Parameter;
import dev.wardrobe.trainer.backward.Parameter.Role;
import java.util.EnumMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * Which optimizer, and its numbers.
 *
 * @param rule what is done to parameters
 * @param eightBit whether state is kept in 8 bits, for tensors that are large enough
 * @param paged whether state may leave fast memory
 * @param beta1 of AdamW and Lion
 * @param beta2 of AdamW and Lion
 * @param epsilon of AdamW
 * @param momentum of SGD
 * @param leastEightBit elements below which a tensor keeps 32-bit state
 * @param groups by role, each a learning rate and decay of its own
 */
public record OptimizerOptions(
    Rule rule,
    boolean eightBit,
    boolean paged,
    double beta1,
    double beta2,
    double epsilon,
    double momentum,
    int leastEightBit,
    Map<Role, Group> groups) {

  /** The names that {@link #named} takes, for help and errors. */
  public static final List<String> NAMES =
      List.of(
          "adamw",
          "adamw8bit",
          "paged_adamw_32bit",
          "paged_adamw_8bit",
          "lion",
          "lion8bit",
          "paged_lion_32bit",
          "paged_lion_8bit",
          "sgd");

  /** Tensors with fewer elements keep 32-bit state, as in bitsandbytes. */
  public static final int LEAST_EIGHT_BIT = 4096;

  /** What is done to parameters, see {@link UpdateRule}. */
  public enum Rule {
    ADAMW,
    LION,
    SGD
  }

  /**
   * What parameters of one role have of their own.
   *
   * @param rate by which the learning rate is multiplied
   * @param decay weight decay
   */
  public record Group(double rate, double decay) {
    public Group {
      check("rate of a group", rate, Double.MAX_VALUE);
      check("weight decay", decay, Double.MAX_VALUE);
    }
  }

  public OptimizerOptions {
    check("beta1", beta1, Math.nextDown(1.0));
    check("beta2", beta2, Math.nextDown(1.0));
    check("epsilon", epsilon, Double.MAX_VALUE);
    check("momentum", momentum, Double.MAX_VALUE);
    EnumMap<Role, Group> all = new EnumMap<>(Role.class);
    for (Role role : Role.values()) {
      all.put(role, groups.getOrDefault(role, new Group(1, 0)));
    }
    groups = Map.copyOf(all);
  }

  private static void check(String what, double value, double most) {
    if (!(value >= 0 && value <= most)) {
      throw new IllegalArgumentException(
          "%s: expected a number from 0 to %s, got %s".formatted(what, most, value));
    }
  }

  /**
   * An optimizer as users name it: one of {@link #NAMES}, or a name that transformers has for one
   * of them. No weight decay; betas are those of the optimizers' authors.
   *
   * @throws IllegalArgumentException if there is none of that name
   */
  public static OptimizerOptions named(String name) {
    return switch (name.toLowerCase(Locale.ROOT)) {
      case "adamw", "adamw_torch", "adamw_torch_fused", "adamw_32bit" -> of(Rule.ADAMW, false);
      case "adamw8bit", "adamw_8bit", "adamw_bnb_8bit" -> of(Rule.ADAMW, true);
      case "paged_adamw", "paged_adamw_32bit" -> of(Rule.ADAMW, false).inPages();
      case "paged_adamw8bit", "paged_adamw_8bit" -> of(Rule.ADAMW, true).inPages();
      case "lion", "lion_32bit" -> of(Rule.LION, false);
      case "lion8bit", "lion_8bit" -> of(Rule.LION, true);
      case "paged_lion", "paged_lion_32bit" -> of(Rule.LION, false).inPages();
      case "paged_lion8bit", "paged_lion_8bit" -> of(Rule.LION, true).inPages();
      case "sgd" -> of(Rule.SGD, false);
      default ->
          throw new IllegalArgumentException(
              "optimizer: expected one of %s, got '%s'".formatted(String.join(", ", NAMES), name));
    };
  }

  private static OptimizerOptions of(Rule rule, boolean eightBit) {
    double beta2 = rule == Rule.LION ? 0.99 : 0.999;
    return new OptimizerOptions(
        rule, eightBit, false, 0.9, beta2, 1e-8, 0, LEAST_EIGHT_BIT, Map.of());
  }

  private OptimizerOptions inPages() {
    return new OptimizerOptions(
        rule, eightBit, true, beta1, beta2, epsilon, momentum, leastEightBit, groups);
  }

  public OptimizerOptions withBetas(double first, double second) {
    return new OptimizerOptions(
        rule, eightBit, paged, first, second, epsilon, momentum, leastEightBit, groups);
  }

  public OptimizerOptions withEpsilon(double value) {
    return new OptimizerOptions(
        rule, eightBit, paged, beta1, beta2, value, momentum, leastEightBit, groups);
  }

  public OptimizerOptions withMomentum(double value) {
    return new OptimizerOptions(
        rule, eightBit, paged, beta1, beta2, epsilon, value, leastEightBit, groups);
  }

  public OptimizerOptions withLeastEightBit(int elements) {
    return new OptimizerOptions(
        rule, eightBit, paged, beta1, beta2, epsilon, momentum, elements, groups);
  }

  /** Everything decays by {@code decay}. */
  public OptimizerOptions withWeightDecay(double decay) {
    OptimizerOptions changed = this;
    for (Role role : Role.values()) {
      changed = changed.withGroup(role, new Group(group(role).rate(), decay));
    }
    return changed;
  }

  /**
   * LoRA+ (arXiv 2402.12354): B's rate is {@code ratio} times A's. DoRA's magnitudes have B's rate,
   * as in PEFT.
   */
  public OptimizerOptions withLoraPlus(double ratio) {
    OptimizerOptions changed = this;
    for (Role role : List.of(Role.B, Role.MAGNITUDE)) {
      changed = changed.withGroup(role, new Group(ratio, group(role).decay()));
    }
    return changed;
  }

  public OptimizerOptions withGroup(Role role, Group group) {
    Map<Role, Group> changed = new EnumMap<>(groups);
    changed.put(role, group);
    return new OptimizerOptions(
        rule, eightBit, paged, beta1, beta2, epsilon, momentum, leastEightBit, changed);
  }

  public Group group(Role role) {
    return groups.getOrDefault(role, new Group(1, 0));
  }

  /** The rule for a parameter of {@code size} elements, at a step counted from 1. */
  UpdateRule at(long step, double rate, Role role, long size) {
    Group group = group(role);
    double own = rate * group.rate();
    boolean small = eightBit && size >= leastEightBit;
    return switch (rule) {
      case ADAMW -> new UpdateRule.AdamW(own, beta1, beta2, epsilon, group.decay(), step, small);
      case LION -> new UpdateRule.Lion(own, beta1, beta2, group.decay(), small);
      case SGD -> new UpdateRule.Sgd(own, momentum, group.decay());
    };
  }

  /** Bytes of state of a parameter of {@code size} elements. */
  public long stateBytes(long size) {
    return at(1, 0, Role.A, size).stateBytes(size);
  }

  UpdateRule at(long step, double rate, Parameter parameter) {
    return at(step, rate, parameter.role(), parameter.size());
  }
}
