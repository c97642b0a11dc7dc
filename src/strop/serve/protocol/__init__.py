"""OpenAI's requests and answers, with strop's additions."""
