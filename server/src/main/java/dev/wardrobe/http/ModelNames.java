package dev.wardrobe.http;

import dev.wardrobe.adapter.AdapterEntry;
import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.adapter.AdapterPage;
import dev.wardrobe.serve.RequestException;
import dev.wardrobe.serve.Served;
import dev.wardrobe.tenant.Caller;
import dev.wardrobe.tenant.VisibleAdapters;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/** What {@code model} may be: the base's name, or whatever names an adapter. */
final class ModelNames {
  /** Most names that an error lists. */
  private static final int LISTED = 10;

  /** How messages about a field begin. */
  private static final Pattern FIELD = Pattern.compile("([a-z_]+)((?:\\[\\d+])?)([.a-z_]*): ");

  /** How the message about a prompt begins for which, or for whose answer, there is no room. */
  private static final Pattern TOO_LONG = Pattern.compile("^the prompt('s| has) \\d+ tokens");

  private final Served served;
  private final String base;

  ModelNames(Served served) {
    this.served = served;
    base = served.model() == null ? "" : served.model().name();
  }

  String base() {
    return base;
  }

  /** The adapter of that name; empty for the base. */
  String adapter(@Nullable String model) {
    return model == null || model.equals(base) ? "" : model;
  }

  /**
   * Checks that there is an adapter of that name.
   *
   * @throws FieldException if there is none
   */
  void check(Caller caller, String model) throws FieldException {
    try {
      new VisibleAdapters(served.adapters(), caller).get(model);
    } catch (AdapterException e) {
      if (e.reason() == AdapterException.Reason.NOT_FOUND) {
        throw FieldException.noModel("model", unknown(caller, model));
      }
    }
  }

  /**
   * A failure as OpenAI's clients know it: an adapter that is not there is a model that is not, and
   * messages that begin with a field's name have it as their {@code param}.
   *
   * @param model what was asked for, or null
   * @param mixed whether that came in {@code adapters}
   * @param fields how this endpoint calls a request's fields, where it differs
   */
  Throwable explain(
      Caller caller,
      Throwable failure,
      @Nullable String model,
      boolean mixed,
      Map<String, String> fields) {
    if (!(failure instanceof RequestException e) || e.getMessage() == null) {
      return failure;
    }
    String message = e.getMessage();
    return switch (e.code()) {
      case NOT_FOUND ->
          FieldException.noModel(
              mixed ? "adapters" : "model",
              mixed || model == null ? message + "; " + known(caller) : unknown(caller, model));
      case INVALID_ARGUMENT, FAILED_PRECONDITION -> {
        Matcher field = FIELD.matcher(message);
        if (field.lookingAt()) {
          String name = fields.getOrDefault(field.group(1) + field.group(3), null);
          String told =
              name != null
                  ? name
                  : fields.getOrDefault(field.group(1), field.group(1)) + field.group(2);
          yield FieldException.of(told, message.substring(field.end()));
        }
        yield TOO_LONG.matcher(message).find()
            ? FieldException.tooLong(message)
            : FieldException.about(null, message);
      }
      default -> failure;
    };
  }

  /** Says that there is no such model, and what there is. */
  String unknown(Caller caller, String model) {
    return "model: there is no '%s'; %s".formatted(Fields.cut(model), known(caller));
  }

  private String known(Caller caller) {
    List<String> names = new ArrayList<>();
    names.add(base);
    AdapterPage page = new VisibleAdapters(served.adapters(), caller).page(null, LISTED);
    for (AdapterEntry entry : page.entries()) {
      names.add(entry.name());
    }
    return "there is %s%s; GET /v1/models lists all"
        .formatted(String.join(", ", names), page.next() == null ? "" : ", …");
  }
}
