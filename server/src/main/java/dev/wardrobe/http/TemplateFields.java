package dev.wardrobe.http;

import com.google.protobuf.Struct;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.TokenizeRequest;
import org.jspecify.annotations.Nullable;

/** How a conversation is rendered: vLLM's fields. */
record TemplateFields(
    @Nullable Struct kwargs, @Nullable Boolean addGenerationPrompt, @Nullable Boolean goOn) {

  static TemplateFields read(Fields fields) throws FieldException {
    Fields kwargs = fields.object("chat_template_kwargs");
    return new TemplateFields(
        kwargs == null ? null : GenerationFields.struct(kwargs.json()),
        fields.flag("add_generation_prompt"),
        fields.flag("continue_final_message"));
  }

  void addTo(GenerateRequest.Builder request) {
    if (kwargs != null) {
      request.setTemplateKwargs(kwargs);
    }
    if (addGenerationPrompt != null) {
      request.setAddGenerationPrompt(addGenerationPrompt);
    }
    if (goOn != null) {
      request.setContinueFinalMessage(goOn);
    }
  }

  void addTo(TokenizeRequest.Builder request) {
    if (kwargs != null) {
      request.setTemplateKwargs(kwargs);
    }
    if (addGenerationPrompt != null) {
      request.setAddGenerationPrompt(addGenerationPrompt);
    }
    if (goOn != null) {
      request.setContinueFinalMessage(goOn);
    }
  }
}
