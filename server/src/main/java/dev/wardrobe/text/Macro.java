package dev.wardrobe.text;

import dev.wardrobe.text.Statement.Signature;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/** A function that a template defines: a macro, or the block that a {@code call} passes on. */
final class Macro implements Callable {

  /** Renders the body with the parameters in {@code scope}. */
  @FunctionalInterface
  interface Body {
    String render(Scope scope);
  }

  /** Evaluates a parameter's default among the parameters before it. */
  @FunctionalInterface
  interface Default {
    Object evaluate(Expression expression, Scope scope);
  }

  private final Signature signature;
  private final Scope surroundings;
  private final Default defaults;
  private final Body body;

  Macro(Signature signature, Scope surroundings, Default defaults, Body body) {
    this.signature = signature;
    this.surroundings = surroundings;
    this.defaults = defaults;
    this.body = body;
  }

  String name() {
    return signature.name();
  }

  @Nullable Object attribute(String name) {
    return switch (name) {
      case "name" -> signature.name();
      case "arguments" -> new Tuple(List.copyOf(signature.parameters()));
      case "catch_kwargs" -> signature.usesKwargs();
      case "catch_varargs" -> signature.usesVarargs();
      case "caller" -> signature.usesCaller();
      default -> null;
    };
  }

  @Override
  public Object call(Arguments arguments) {
    List<String> parameters = signature.parameters();
    List<Object> positional = arguments.positional();
    if (positional.size() > parameters.size() && !signature.usesVarargs()) {
      throw new TemplateFailure(
          "macro '" + name() + "' takes not more than " + parameters.size() + " argument(s)");
    }
    Scope scope = new Scope(surroundings);
    Map<String, Object> named = new LinkedHashMap<>(arguments.named());
    int firstDefault = parameters.size() - signature.defaults().size();
    for (int i = 0; i < parameters.size(); i++) {
      String parameter = parameters.get(i);
      Object value = i < positional.size() ? positional.get(i) : named.remove(parameter);
      if (value == null) {
        value =
            i >= firstDefault
                ? defaults.evaluate(signature.defaults().get(i - firstDefault), scope)
                : new Undefined("parameter '" + parameter + "' was not provided");
      }
      scope.set(parameter, value);
    }
    if (signature.usesCaller() && !parameters.contains("caller")) {
      Object caller = named.remove("caller");
      scope.set("caller", caller != null ? caller : new Undefined("No caller defined"));
    }
    if (signature.usesKwargs()) {
      scope.set("kwargs", new LinkedHashMap<Object, Object>(named));
    } else if (!named.isEmpty()) {
      throw new TemplateFailure(
          "macro '"
              + name()
              + "' takes no keyword argument '"
              + new TreeMap<>(named).firstKey()
              + "'");
    }
    if (signature.usesVarargs()) {
      int taken = Math.min(parameters.size(), positional.size());
      scope.set("varargs", new Tuple(positional.subList(taken, positional.size())));
    }
    Budget.enter();
    String text = body.render(scope);
    Budget.leave();
    return text;
  }
}
