package dev.wardrobe.trainer.report;

import java.util.Map;

/** A run as an adapter's {@code README.md}, as model hubs show it. */
public final class ModelCard {
  /** Its name in the output folder. */
  public static final String FILE = "README.md";

  private ModelCard() {}

  /**
   * The card.
   *
   * @param page what is known of the run
   * @param base the base's name
   * @param fingerprint the base's, or ""
   */
  public static String of(Page page, String base, String fingerprint) {
    StringBuilder text = new StringBuilder();
    text.append("---\nbase_model: ").append(yaml(base)).append('\n');
    text.append("library_name: peft\npipeline_tag: text-generation\n");
    text.append("tags:\n- lora\n- qlora\n- wardrobe\n---\n\n# ");
    text.append(line(page.title())).append("\n\n");
    text.append(
        """
        A LoRA adapter in PEFT's form, trained over a frozen 4-bit base by `wardrobe train`.
        `report.html` has the curves, `metrics.jsonl` the numbers of each step.

        """);
    table(text, "Result", page.facts());
    if (!fingerprint.isEmpty()) {
      text.append("The base's quantized weights have the fingerprint `");
      text.append(fingerprint).append("`; a server over another base refuses the adapter.\n\n");
    }
    table(text, "Data", page.data());
    table(text, "Options", page.options());
    return text.toString();
  }

  private static void table(StringBuilder text, String title, Map<String, String> rows) {
    if (rows.isEmpty()) {
      return;
    }
    text.append("## ").append(title).append("\n\n| | |\n|---|---|\n");
    rows.forEach(
        (name, value) ->
            text.append("| ").append(line(name)).append(" | ").append(line(value)).append(" |\n"));
    text.append('\n');
  }

  private static String line(String text) {
    return text.strip().replaceAll("\\s*\\R\\s*", "; ").replace("|", "\\|").replace("<", "&lt;");
  }

  private static String yaml(String text) {
    return "\""
        + text.replace("\\", "\\\\").replace("\"", "\\\"").replaceAll("\\p{Cntrl}", " ")
        + "\"";
  }
}
