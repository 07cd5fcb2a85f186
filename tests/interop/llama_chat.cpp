// Prints what llama.cpp's server sends to the model of a GGUF: the text of a conversation and its token ids, as JSON.
// The conversation is read from the standard input; a second argument is the server's --chat-template-file.
#include "chat.h"
#include "common.h"
#include "llama.h"

#include <nlohmann/json.hpp>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>

static std::string read(std::istream & stream) {
    return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

int main(int argc, char ** argv) {
    if (argc < 2 || argc > 3) {
        std::fprintf(stderr, "usage: %s FILE.gguf [TEMPLATE.jinja] <messages.json\n", argv[0]);
        return 2;
    }
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    llama_model_params only_vocabulary = llama_model_default_params();
    only_vocabulary.vocab_only = true;
    llama_model * model = llama_model_load_from_file(argv[1], only_vocabulary);
    if (model == nullptr) {
        std::fprintf(stderr, "%s cannot be loaded\n", argv[1]);
        return 1;
    }
    std::string chat_template;
    if (argc == 3) {
        std::ifstream file(argv[2]);
        chat_template = read(file);
    }
    common_chat_templates_inputs inputs;
    inputs.messages = common_chat_msgs_parse_oaicompat(common_json::parse(read(std::cin)));
    const auto templates = common_chat_templates_init(model, chat_template);
    const std::string text = common_chat_templates_apply(templates.get(), inputs).prompt;
    const auto ids = common_tokenize(llama_model_get_vocab(model), text, true, true);
    std::cout << nlohmann::json{{"text", text}, {"ids", ids}}.dump() << "\n";
    llama_model_free(model);
    return 0;
}
